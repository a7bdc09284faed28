#include "client/src/session_messages.h"

#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attnd/error_detail.h"
#include "client/src/proto_time.h"
#include "client/src/protobuf_wire.h"
#include "client/src/shape.h"
#include "client/src/status.h"
#include "tensor/checked_size.h"

namespace attnd::client {
namespace {

absl::Status NotAnAnswer(absl::string_view why) {
  return absl::InternalError(absl::StrCat("the server's reply is not an answer to the step: ", why));
}

// nullopt on overflow of 63 bits.
std::optional<std::int64_t> BytesOf(const std::array<std::int64_t, 4>& sizes, DType dtype) {
  return tensor::CheckedProduct({sizes[0], sizes[1], sizes[2], sizes[3], static_cast<std::int64_t>(SizeOf(dtype))});
}

std::int64_t RowsOf(const TensorView& tensor, Layout layout) {
  return tensor.sizes[layout == Layout::kBatchSequenceHeadDim ? 1 : 2];
}

absl::Status TooLarge(const char* field, std::int64_t room, std::int64_t max_bytes, const std::string& got) {
  return ErrorWithDetail(
      absl::StatusCode::kResourceExhausted,
      {field, absl::StrCat("at most ", room, " bytes, as a message has ", max_bytes, " at most"), got});
}

// The dtype of the step's tensors; nullopt if it has none.
std::optional<DType> DTypeOf(const StepRequest& request) {
  for (const TensorView* tensor : {&request.q, &request.k, &request.v}) {
    if (tensor->data != nullptr) return tensor->dtype;
  }
  return std::nullopt;
}

SessionFacts FactsOf(const v1::SessionOpened& opened) {
  SessionFacts facts;
  facts.version = opened.version();
  facts.content_hash = opened.content_hash();
  facts.reserved_bytes = opened.reserved_bytes();
  facts.page_tokens = opened.page_tokens();
  if (opened.has_idle_time()) facts.idle_time = ToDuration(opened.idle_time());
  if (opened.has_life_time()) facts.life_time = ToDuration(opened.life_time());
  facts.max_message_bytes = opened.max_message_bytes();
  return facts;
}

// A new tensor of `size` bytes, which `fill` writes.
template <typename Fill>
absl::StatusOr<Tensor> NewOutput(DType dtype, std::size_t size, const Fill& fill) {
  std::shared_ptr<unsigned char[]> memory(new (std::nothrow) unsigned char[size]);
  if (memory == nullptr) return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes of output"));
  fill(memory.get());
  return Tensor(dtype, {}, Tensor::Segment(memory.get(), size), memory);
}

// Copies the tensors of a step's answer to `reply`.
absl::Status TakeTensors(const SplitReply& split, DType dtype, StepReply& reply) {
  if (split.output.has_value()) {
    absl::StatusOr<Tensor> output =
        NewOutput(dtype, split.output->size, [&](void* to) { Gather(split, *split.output, to); });
    if (!output.ok()) return output.status();
    reply.output = *std::move(output);
  }
  if (split.log_sum_exp.has_value()) {
    if (split.log_sum_exp->size % sizeof(float) != 0) return NotAnAnswer("log_sum_exp: expected whole floats");
    reply.log_sum_exp.resize(split.log_sum_exp->size / sizeof(float));
    Gather(split, *split.log_sum_exp, reply.log_sum_exp.data());
  }
  return absl::OkStatus();
}

}  // namespace

std::string EncodeOpening(const SessionRequest& request) {
  v1::SessionRequest message;
  v1::SessionOpen& open = *message.mutable_open();
  open.set_model(request.model);
  open.set_version(request.version);
  open.set_rows(request.rows);
  open.set_sources(request.sources);
  for (const SessionLayer& layer : request.layers) {
    v1::SessionLayer& to = *open.add_layers();
    to.set_kind(static_cast<v1::SessionLayerKind>(layer.kind));
    to.set_table(layer.table);
    to.set_bias(static_cast<v1::Bias>(layer.bias));
    to.set_heads(layer.heads);
    to.set_kv_heads(layer.kv_heads);
    to.set_head_dim(layer.head_dim);
    to.set_value_head_dim(layer.value_head_dim);
    if (layer.scale.has_value()) to.set_scale(*layer.scale);
  }
  open.set_dtype(static_cast<v1::Dtype>(request.dtype));
  open.set_max_tokens(request.max_tokens);
  open.set_max_source_tokens(request.max_source_tokens);
  open.mutable_row_sources()->Add(request.row_sources.begin(), request.row_sources.end());
  return message.SerializeAsString();
}

absl::StatusOr<StepSizes> SizesOf(const StepRequest& request, const SessionLayer& layer) {
  StepSizes sizes;
  const DType dtype = DTypeOf(request).value_or(DType::kFp32);
  for (const auto& [name, tensor, bytes] :
       {std::tuple{"q", &request.q, &sizes.q}, {"k", &request.k, &sizes.k}, {"v", &request.v, &sizes.v}}) {
    if (tensor->data == nullptr) continue;
    if (tensor->dtype != dtype) {
      return ErrorWithDetail(absl::StatusCode::kInvalidArgument,
                             {absl::StrCat(name, ".dtype"), "that of the step's other tensors", "another one"});
    }
    const std::optional<std::int64_t> size = BytesOf(tensor->sizes, dtype);
    if (!size.has_value() || *size > kMaxMessageBytes) {
      return TooLarge(name, kMaxMessageBytes, kMaxMessageBytes,
                      size.has_value() ? absl::StrCat(*size, " bytes") : "more");
    }
    *bytes = *size;
  }
  if (request.q.data == nullptr) return sizes;
  sizes.output_dtype = request.output_dtype.value_or(dtype);
  sizes.output_sizes = request.q.sizes;
  sizes.output_sizes[3] = layer.value_head_dim == 0 ? layer.head_dim : layer.value_head_dim;
  const std::optional<std::int64_t> output = BytesOf(sizes.output_sizes, sizes.output_dtype);
  const std::optional<std::int64_t> log_sum_exp =
      tensor::CheckedProduct({request.q.sizes[0], request.q.sizes[1], request.q.sizes[2], std::int64_t{sizeof(float)}});
  for (const std::optional<std::int64_t>& bytes : {output, log_sum_exp}) {
    if (!bytes.has_value() || *bytes > kMaxMessageBytes) {
      return TooLarge("q", kMaxMessageBytes, kMaxMessageBytes, "queries with larger results");
    }
  }
  sizes.output = *output;
  if (request.return_log_sum_exp) sizes.log_sum_exp = *log_sum_exp;
  return sizes;
}

std::array<StepTensor, 3> TensorsOf(const StepRequest& request, const StepSizes& sizes) {
  return {{{"q", v1::SessionRequest::kQFieldNumber, request.q, sizes.q},
           {"k", v1::SessionRequest::kKFieldNumber, request.k, sizes.k},
           {"v", v1::SessionRequest::kVFieldNumber, request.v, sizes.v}}};
}

v1::SessionStep StepFields(const StepRequest& request, std::uint64_t number) {
  v1::SessionStep step;
  step.set_step(number);
  step.set_layer(request.layer);
  step.mutable_reorder()->Add(request.reorder.begin(), request.reorder.end());
  step.mutable_truncate()->Add(request.truncate.begin(), request.truncate.end());
  step.mutable_expected_lengths()->Add(request.expected_lengths.begin(), request.expected_lengths.end());
  step.mutable_key_starts()->Add(request.key_starts.begin(), request.key_starts.end());
  step.set_key_bits(request.key_bits.data(), request.key_bits.size());
  step.set_key_bits_length(request.key_bits_length);
  step.set_layout(static_cast<v1::Layout>(request.layout));
  if (request.q.data != nullptr) step.set_query_length(RowsOf(request.q, request.layout));
  if (request.k.data != nullptr) step.set_key_length(RowsOf(request.k, request.layout));
  step.mutable_query_lengths()->Add(request.query_lengths.begin(), request.query_lengths.end());
  step.mutable_key_lengths()->Add(request.key_lengths.begin(), request.key_lengths.end());
  const std::optional<DType> dtype = DTypeOf(request);
  if (dtype.has_value()) step.set_dtype(static_cast<v1::Dtype>(*dtype));
  if (request.output_dtype.has_value()) step.set_output_dtype(static_cast<v1::Dtype>(*request.output_dtype));
  step.set_product_precision(static_cast<v1::ProductPrecision>(request.product_precision));
  step.set_return_log_sum_exp(request.return_log_sum_exp);
  if (request.timeout < absl::InfiniteDuration()) {
    absl::Duration left = std::max(request.timeout, absl::ZeroDuration());
    step.mutable_timeout()->set_seconds(absl::IDivDuration(left, absl::Seconds(1), &left));
    step.mutable_timeout()->set_nanos(static_cast<std::int32_t>(absl::ToInt64Nanoseconds(left)));
  }
  return step;
}

std::optional<absl::Status> FieldsTooLarge(std::size_t fields, std::int64_t max_bytes) {
  // The error names key_bits: the other fields have only a number for each row or source.
  if (static_cast<std::int64_t>(fields) <= max_bytes) return std::nullopt;
  return ErrorWithDetail(absl::StatusCode::kResourceExhausted,
                         {"key_bits", absl::StrCat("at most ", max_bytes, " bytes in a message, with the other fields"),
                          absl::StrCat(fields, " bytes")});
}

absl::StatusOr<grpc::ByteBuffer> EncodeStep(const StepRequest& request, const StepSizes& sizes, std::uint64_t number,
                                            std::int64_t max_bytes) {
  v1::SessionRequest message;
  *message.mutable_step() = StepFields(request, number);
  std::string bytes = message.SerializeAsString();
  if (auto s = FieldsTooLarge(bytes.size(), max_bytes)) return *std::move(s);
  for (const StepTensor& tensor : TensorsOf(request, sizes)) {
    if (tensor.view.data == nullptr) continue;
    AppendVarint(BytesTag(tensor.field), bytes);
    AppendVarint(static_cast<std::uint64_t>(tensor.bytes), bytes);
    const std::int64_t room = std::max<std::int64_t>(max_bytes - static_cast<std::int64_t>(bytes.size()), 0);
    if (tensor.bytes > room) return TooLarge(tensor.name, room, max_bytes, absl::StrCat(tensor.bytes, " bytes"));
    bytes.append(static_cast<const char*>(tensor.view.data), static_cast<std::size_t>(tensor.bytes));
  }
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

absl::StatusOr<SessionAnswer> DecodeAnswer(const SplitReply& split) {
  v1::SessionReply message;
  if (!message.ParseFromString(split.small_fields)) return NotAnAnswer("it is no SessionReply");
  SessionAnswer answer;
  if (message.has_opened()) answer.opened = FactsOf(message.opened());
  if (message.has_going_away()) answer.going_away = ToDuration(message.going_away().time_left());
  if (!message.has_result()) return answer;
  const v1::SessionStepResult& result = message.result();
  answer.step = result.step();
  answer.status = StatusOf(result);
  answer.reply.lengths.assign(result.lengths().begin(), result.lengths().end());
  answer.reply.used_bytes = result.used_bytes();
  answer.reply.queue_time = ToDuration(result.queue_time());
  answer.reply.compute_time = ToDuration(result.compute_time());
  if (auto s = TakeTensors(split, static_cast<DType>(result.dtype()), answer.reply); !s.ok()) return s;
  return answer;
}

absl::StatusOr<Tensor> CopyOutput(DType dtype, const void* bytes, std::size_t size) {
  return NewOutput(dtype, size, [&](void* to) { std::memcpy(to, bytes, size); });
}

absl::Status FitReply(const StepRequest& request, const StepSizes& sizes, StepReply& reply) {
  if (request.q.data == nullptr) return absl::OkStatus();
  const auto got = static_cast<std::int64_t>(reply.output.size_bytes());
  if (reply.output.dtype() != sizes.output_dtype || got != sizes.output) {
    return NotAnAnswer(absl::StrCat("output: expected ", sizes.output, " bytes, got ", got));
  }
  const std::size_t values = static_cast<std::size_t>(sizes.log_sum_exp) / sizeof(float);
  if (reply.log_sum_exp.size() != values) {
    return NotAnAnswer(absl::StrCat("log_sum_exp: expected ", values, " values, got ", reply.log_sum_exp.size()));
  }
  const std::vector<Tensor::Segment> segments(reply.output.segments().begin(), reply.output.segments().end());
  auto held = std::make_shared<Tensor>(std::move(reply.output));
  reply.output = Tensor(sizes.output_dtype, sizes.output_sizes, segments, std::move(held));
  return absl::OkStatus();
}

}  // namespace attnd::client
