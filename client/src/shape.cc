#include "client/src/shape.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "attnd/error_detail.h"
#include "contract/request.h"
#include "tensor/checked_size.h"

namespace attnd::client {
namespace {

// A tensor's axes by name, independent of the layout.
struct Axes {
  std::int64_t batch, heads, sequence, dim;
};

Axes AxesOf(const TensorView& tensor, Layout layout) {
  const auto& s = tensor.sizes;
  if (layout == Layout::kBatchSequenceHeadDim) return {s[0], s[2], s[1], s[3]};
  return {s[0], s[1], s[2], s[3]};
}

absl::Status Invalid(std::string field, std::string expected, std::string got) {
  return ErrorWithDetail(absl::StatusCode::kInvalidArgument, {std::move(field), std::move(expected), std::move(got)});
}

absl::Status Refusal(const std::optional<contract::Fault>& fault) {
  return fault.has_value() ? Invalid(fault->field, fault->expected, fault->got) : absl::OkStatus();
}

absl::Status CheckSame(const std::string& field, const char* like, std::int64_t expected, std::int64_t got) {
  if (expected == got) return absl::OkStatus();
  return Invalid(field, absl::StrCat(expected, " as ", like, " has"), absl::StrCat(got));
}

// q, k and v must agree. If two agree, the third is at fault; if all differ, k is.
absl::Status CheckAllSame(const char* axis, std::int64_t q, std::int64_t k, std::int64_t v) {
  if (k == v) return CheckSame(absl::StrCat("q.", axis), "k and v", k, q);
  if (q == k) return CheckSame(absl::StrCat("v.", axis), "q and k", q, v);
  return CheckSame(absl::StrCat("k.", axis), q == v ? "q and v" : "q", q, k);
}

// k and v must have the same number of heads, a divisor of q's. If they differ, k is at fault if v's number equals q's,
// or if v's alone divides q's; otherwise v is.
absl::Status CheckKeyHeads(std::int64_t q, std::int64_t k, std::int64_t v) {
  if (k == v) return Refusal(contract::CheckKeyHeads(q, k));
  if (q == v) return CheckSame("k.heads", "q and v", v, k);
  if (q == k) return CheckSame("v.heads", "q and k", k, v);
  const bool only_v = q % v == 0 && q % k != 0;
  return only_v ? CheckSame("k.heads", "v", v, k) : CheckSame("v.heads", "k", k, v);
}

bool IsDType(DType dtype) { return dtype == DType::kFp32 || dtype == DType::kFp16 || dtype == DType::kBf16; }

std::string NameOf(DType dtype) {
  if (!IsDType(dtype)) return absl::StrCat(static_cast<int>(dtype));
  return dtype == DType::kFp32 ? "DTYPE_FP32" : dtype == DType::kFp16 ? "DTYPE_FP16" : "DTYPE_BF16";
}

absl::Status CheckTensor(const std::string& name, const TensorView& tensor, Layout layout, DType dtype) {
  const Axes axes = AxesOf(tensor, layout);
  const std::pair<const char*, std::int64_t> named[] = {
      {"batch", axes.batch}, {"heads", axes.heads}, {"sequence", axes.sequence}, {"head_dim", axes.dim}};
  for (const auto& [axis, size] : named) {
    if (size < 1) return Invalid(absl::StrCat(name, ".", axis), "at least 1", absl::StrCat(size));
  }
  if (!IsDType(tensor.dtype)) return Invalid("dtype", contract::kDtypes, NameOf(tensor.dtype));
  if (tensor.dtype != dtype) return Invalid(absl::StrCat(name, ".dtype"), NameOf(dtype), NameOf(tensor.dtype));
  if (tensor.data == nullptr) return Invalid(name, "a tensor", "no data (a null pointer)");
  return absl::OkStatus();
}

absl::Status CheckTensors(const ComputeRequest& r) {
  for (const auto& [name, tensor] : {std::pair{"q", &r.q}, std::pair{"k", &r.k}, std::pair{"v", &r.v}}) {
    if (auto s = CheckTensor(name, *tensor, r.layout, r.q.dtype); !s.ok()) return s;
  }
  const Axes q = AxesOf(r.q, r.layout), k = AxesOf(r.k, r.layout), v = AxesOf(r.v, r.layout);
  if (r.kv_rows.empty()) {
    if (auto s = CheckAllSame("batch", q.batch, k.batch, v.batch); !s.ok()) return s;
  } else if (auto s = CheckSame("v.batch", "k", k.batch, v.batch); !s.ok()) {
    return s;
  }
  if (auto s = CheckSame("k.head_dim", "q", q.dim, k.dim); !s.ok()) return s;
  if (auto s = CheckSame("v.sequence", "k", k.sequence, v.sequence); !s.ok()) return s;
  return CheckKeyHeads(q.heads, k.heads, v.heads);
}

absl::Status CheckModel(const ComputeRequest& r) {
  if (r.bias == Bias::kNone) {
    return Refusal(
        contract::CheckNoModel({.model = r.model, .version = r.version, .table = r.table, .first_head = r.first_head}));
  }
  if (r.model.empty()) return Invalid("model", "the name of a loaded model", "an empty name");
  if (r.first_head.has_value() && *r.first_head < 0) {
    return Invalid("first_head", "at least 0", absl::StrCat(*r.first_head));
  }
  return absl::OkStatus();
}

// With Mask::kOfTable, the table decides whether the mask is causal. Only the server knows the table.
bool MayBeCausal(const ComputeRequest& r) {
  return r.mask == Mask::kCausal || (r.mask == Mask::kOfTable && r.bias == Bias::kOfTable);
}

std::optional<contract::Fault> CheckBesideSegments(const ComputeRequest& r) {
  if (r.query_segments.empty()) return std::nullopt;
  return contract::CheckBesideSegments({.query_offset = r.query_offset.has_value() ? 1U : 0U,
                                        .query_offsets = r.query_offsets.size(),
                                        .query_lengths = r.query_lengths.size(),
                                        .key_lengths = r.key_lengths.size(),
                                        .key_starts = r.key_starts.size(),
                                        .key_bits = r.key_bits.size(),
                                        .prefix_lengths = r.prefix_lengths.size(),
                                        .key_bias = r.key_bias.size(),
                                        .kv_rows = r.kv_rows.size()});
}

// Checks positions, masks, key_bias, kv_rows and segments.
absl::Status CheckSequences(const ComputeRequest& r, const Shape& shape) {
  if (r.query_offset.has_value()) {
    if (auto s = Refusal(contract::CheckQueryOffset(*r.query_offset, shape.query_length)); !s.ok()) return s;
  }
  const std::optional<contract::Fault> faults[] = {
      contract::CheckQueryOffsets(r.query_offsets, r.query_offset.has_value(), shape.batch, shape.query_length),
      contract::CheckLengths("query_lengths", r.query_lengths, shape.batch, shape.query_length),
      contract::CheckLengths("key_lengths", r.key_lengths, shape.batch, shape.key_length),
      contract::CheckLengths("key_starts", r.key_starts, shape.batch, shape.key_length),
      contract::CheckKeyBits(r.key_bits.size(), shape.batch, shape.key_length),
      contract::CheckWindow("window_left", r.window_left),
      contract::CheckWindow("window_right", r.window_right),
      contract::CheckPrefixLengths(r.prefix_lengths, MayBeCausal(r), shape.batch, shape.key_length),
      contract::CheckKeyBias(r.key_bias, shape.heads, shape.key_length),
      contract::CheckKvRows(r.kv_rows, shape.kv_batch, shape.batch),
      contract::CheckSegments(r.query_segments, r.key_segments, shape.batch, shape.query_length, shape.key_length),
      CheckBesideSegments(r),
  };
  for (const std::optional<contract::Fault>& fault : faults) {
    if (fault.has_value()) return Refusal(fault);
  }
  return absl::OkStatus();
}

absl::Status CheckScalars(const ComputeRequest& r, const Shape& shape) {
  if (auto s = CheckModel(r); !s.ok()) return s;
  if (auto s = Refusal(contract::CheckScale(r.scale.value_or(1))); !s.ok()) return s;
  if (r.output_dtype.has_value() && !IsDType(*r.output_dtype)) {
    return Invalid("output_dtype", contract::kDtypes, NameOf(*r.output_dtype));
  }
  return CheckSequences(r, shape);
}

absl::Status CheckDestination(const std::string& field, const Destination& to, std::int64_t bytes) {
  if (to.data == nullptr || static_cast<std::int64_t>(to.size_bytes) == bytes) return absl::OkStatus();
  return Invalid(field, absl::StrCat(bytes, " bytes"), absl::StrCat(to.size_bytes, " bytes"));
}

absl::StatusOr<std::int64_t> BytesOf(const std::string& field, std::initializer_list<std::int64_t> dims,
                                     std::size_t element) {
  std::vector<std::int64_t> factors(dims);
  factors.push_back(static_cast<std::int64_t>(element));
  const std::optional<std::int64_t> bytes = tensor::CheckedProduct(factors);
  if (bytes.has_value() && *bytes <= kMaxMessageBytes) return *bytes;
  return ErrorWithDetail(absl::StatusCode::kResourceExhausted,
                         {field, absl::StrCat("at most ", kMaxMessageBytes, " bytes (a protobuf message)"),
                          absl::StrCat(absl::StrJoin(dims, " x "), " elements of ", element, " bytes each")});
}

absl::Status SetBytes(const ComputeRequest& r, Shape& s) {
  const std::size_t element = SizeOf(r.q.dtype);
  const auto set = [](std::int64_t& to, absl::StatusOr<std::int64_t> bytes) {
    if (bytes.ok()) to = *bytes;
    return bytes.status();
  };
  if (auto e = set(s.q_bytes, BytesOf("q", {s.batch, s.heads, s.query_length, s.head_dim}, element)); !e.ok()) return e;
  if (auto e = set(s.k_bytes, BytesOf("k", {s.kv_batch, s.kv_heads, s.key_length, s.head_dim}, element)); !e.ok())
    return e;
  if (auto e = set(s.v_bytes, BytesOf("v", {s.kv_batch, s.kv_heads, s.key_length, s.value_head_dim}, element));
      !e.ok()) {
    return e;
  }
  if (auto e = set(s.output_bytes,
                   BytesOf("output", {s.batch, s.heads, s.query_length, s.value_head_dim}, SizeOf(s.output_dtype)));
      !e.ok()) {
    return e;
  }
  if (auto e = set(s.log_sum_exp_bytes, BytesOf("log_sum_exp", {s.batch, s.heads, s.query_length}, sizeof(float)));
      !e.ok()) {
    return e;
  }
  if (s.q_bytes + s.k_bytes + s.v_bytes <= kMaxMessageBytes) return absl::OkStatus();
  return ErrorWithDetail(absl::StatusCode::kResourceExhausted,
                         {"q, k and v", absl::StrCat("at most ", kMaxMessageBytes, " bytes (a protobuf message)"),
                          absl::StrCat(s.q_bytes + s.k_bytes + s.v_bytes, " bytes")});
}

}  // namespace

absl::StatusOr<Shape> CheckRequest(const ComputeRequest& request) {
  if (request.layout != Layout::kBatchHeadSequenceDim && request.layout != Layout::kBatchSequenceHeadDim) {
    return Invalid("layout", contract::kLayouts, absl::StrCat(static_cast<int>(request.layout)));
  }
  if (auto s = CheckTensors(request); !s.ok()) return s;
  const Axes q = AxesOf(request.q, request.layout);
  const Axes k = AxesOf(request.k, request.layout);
  const Axes v = AxesOf(request.v, request.layout);
  Shape shape{};
  shape.batch = q.batch;
  shape.kv_batch = k.batch;
  shape.cuttable = request.kv_rows.empty() && (request.query_segments.empty() || shape.batch == 1);
  shape.heads = q.heads;
  shape.kv_heads = k.heads;
  shape.query_length = q.sequence;
  shape.key_length = k.sequence;
  shape.head_dim = q.dim;
  shape.value_head_dim = v.dim;
  shape.output_dtype = request.output_dtype.value_or(request.q.dtype);
  shape.output_sizes = request.q.sizes;
  shape.output_sizes[3] = v.dim;
  if (auto s = CheckScalars(request, shape); !s.ok()) return s;
  if (auto s = SetBytes(request, shape); !s.ok()) return s;
  if (auto s = CheckDestination("output", request.output, shape.output_bytes); !s.ok()) return s;
  if (auto s = CheckDestination("log_sum_exp", request.log_sum_exp, shape.log_sum_exp_bytes); !s.ok()) return s;
  return shape;
}

}  // namespace attnd::client
