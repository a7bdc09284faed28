#include "client/src/session_messages.h"

#include <grpcpp/support/slice.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attnd/error_detail.h"
#include "client/messages/session.pb.h"
#include "client/src/decode.h"
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

// nullopt if they do not fit 63 bits.
std::optional<std::int64_t> BytesOf(const std::array<std::int64_t, 4>& sizes, DType dtype) {
  return tensor::CheckedProduct({sizes[0], sizes[1], sizes[2], sizes[3], static_cast<std::int64_t>(SizeOf(dtype))});
}

std::int64_t RowsOf(const TensorView& tensor, Layout layout) {
  return tensor.sizes[layout == Layout::kBatchSequenceHeadDim ? 1 : 2];
}

grpc::ByteBuffer OneSlice(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// Appends a tensor's field, unless it is left out.
absl::Status AppendTensor(const char* name, int field, const TensorView& tensor, DType dtype, std::string& message) {
  if (tensor.data == nullptr) return absl::OkStatus();
  const std::optional<std::int64_t> bytes = BytesOf(tensor.sizes, tensor.dtype);
  if (tensor.dtype != dtype) {
    return ErrorWithDetail(absl::StatusCode::kInvalidArgument,
                           {absl::StrCat(name, ".dtype"), "that of the step's other tensors", "another one"});
  }
  if (!bytes.has_value() || *bytes > kMaxMessageBytes - static_cast<std::int64_t>(message.size())) {
    return ErrorWithDetail(absl::StatusCode::kResourceExhausted,
                           {name, absl::StrCat("at most ", kMaxMessageBytes, " bytes in a message"),
                            bytes.has_value() ? absl::StrCat(*bytes, " bytes") : "more"});
  }
  AppendVarint(BytesTag(field), message);
  AppendVarint(static_cast<std::uint64_t>(*bytes), message);
  message.append(static_cast<const char*>(tensor.data), static_cast<std::size_t>(*bytes));
  return absl::OkStatus();
}

// The dtype of the tensors that a step has; nullopt if it has none.
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
  return facts;
}

// The tensors of a step's answer, copied; their sizes are set by FitReply.
absl::Status TakeTensors(const SplitReply& split, DType dtype, StepReply& reply) {
  if (split.output.has_value()) {
    const std::size_t size = split.output->size;
    std::shared_ptr<unsigned char[]> memory(new (std::nothrow) unsigned char[size]);
    if (memory == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes of output"));
    }
    Gather(split, *split.output, memory.get());
    reply.output = Tensor(dtype, {}, Tensor::Segment(memory.get(), size), memory);
  }
  if (split.log_sum_exp.has_value()) {
    if (split.log_sum_exp->size % sizeof(float) != 0) return NotAnAnswer("log_sum_exp: expected whole floats");
    reply.log_sum_exp.resize(split.log_sum_exp->size / sizeof(float));
    Gather(split, *split.log_sum_exp, reply.log_sum_exp.data());
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ByteBuffer EncodeOpening(const SessionRequest& request) {
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
  return OneSlice(message.SerializeAsString());
}

absl::StatusOr<grpc::ByteBuffer> EncodeStep(const StepRequest& request, std::uint64_t number) {
  v1::SessionRequest message;
  v1::SessionStep& step = *message.mutable_step();
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
  std::string bytes = message.SerializeAsString();
  const DType same = dtype.value_or(DType::kFp32);
  for (const auto& [name, field, tensor] : {std::tuple{"q", v1::SessionRequest::kQFieldNumber, &request.q},
                                            {"k", v1::SessionRequest::kKFieldNumber, &request.k},
                                            {"v", v1::SessionRequest::kVFieldNumber, &request.v}}) {
    if (auto s = AppendTensor(name, field, *tensor, same, bytes); !s.ok()) return s;
  }
  return OneSlice(bytes);
}

absl::StatusOr<SessionAnswer> DecodeAnswer(grpc::ByteBuffer& bytes) {
  const absl::StatusOr<SplitReply> split = Split(bytes);
  if (!split.ok()) return split.status();
  v1::SessionReply message;
  if (!message.ParseFromString(split->small_fields)) return NotAnAnswer("it is no SessionReply");
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
  if (auto s = TakeTensors(*split, static_cast<DType>(result.dtype()), answer.reply); !s.ok()) return s;
  return answer;
}

absl::Status FitReply(const StepRequest& request, const SessionLayer& layer, StepReply& reply) {
  if (request.q.data == nullptr) return absl::OkStatus();
  const DType dtype = request.output_dtype.value_or(request.q.dtype);
  std::array<std::int64_t, 4> sizes = request.q.sizes;
  sizes[3] = layer.value_head_dim == 0 ? layer.head_dim : layer.value_head_dim;
  const std::optional<std::int64_t> bytes = BytesOf(sizes, dtype);
  const auto got = static_cast<std::int64_t>(reply.output.size_bytes());
  if (reply.output.dtype() != dtype || bytes != got) {
    return NotAnAnswer(absl::StrCat("output: expected ", bytes.value_or(0), " bytes, got ", got));
  }
  const std::int64_t rows = request.return_log_sum_exp ? sizes[0] * sizes[1] * sizes[2] : 0;
  if (static_cast<std::int64_t>(reply.log_sum_exp.size()) != rows) {
    return NotAnAnswer(absl::StrCat("log_sum_exp: expected ", rows, " values, got ", reply.log_sum_exp.size()));
  }
  const std::vector<Tensor::Segment> segments(reply.output.segments().begin(), reply.output.segments().end());
  auto held = std::make_shared<Tensor>(std::move(reply.output));
  reply.output = Tensor(dtype, sizes, segments, std::move(held));
  return absl::OkStatus();
}

}  // namespace attnd::client
