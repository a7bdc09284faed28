#include "session_support.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "wait.h"

namespace attnd::e2e {
namespace {

// Beside which a step's message holds all but its tensors.
constexpr std::size_t kMostSent = 60000;

std::size_t SizeOf(v1::Dtype dtype) { return dtype == v1::DTYPE_FP32 ? 4 : 2; }

server::Options WithSocket(server::Options options, const std::string& folder) {
  options.listen.push_back("unix:" + folder + "/s");
  return options;
}

}  // namespace

SessionServer::SessionServer(const std::shared_ptr<test::TempFolder>& folder, server::Options options)
    : TestServer(WithSocket(std::move(options), folder->path())), folder_(folder) {}

Stream::Stream(const SessionServer& server, Door door, const std::shared_ptr<grpc::Channel>& channel) {
  if (door == Door::kGrpc) {
    stub_ = v1::SessionService::NewStub(channel != nullptr ? channel : server.channel());
    stream_ = stub_->Attend(&context_);
    return;
  }
  caller_ = std::make_unique<test::LocalCaller>(server.local_path());
  const v1::LocalWelcome welcome = caller_->Greet();
  EXPECT_EQ(welcome.code(), 0) << welcome.message();
  EXPECT_TRUE(welcome.sessions());
}

Stream::Stream(const SessionServer& server, Door door, const v1::SessionOpen& open,
               const std::shared_ptr<grpc::Channel>& channel)
    : Stream(server, door, channel) {
  open_ = open;
  v1::SessionRequest request;
  *request.mutable_open() = open;
  Open(request);
}

void Stream::Open(const v1::SessionRequest& request) {
  opened_ = Write(request) && Read() && reply_.has_opened();
  facts_ = reply_.opened();
}

std::unique_ptr<Stream> Stream::Resumed(const SessionServer& server, Door door, const Stream& lost) {
  v1::SessionRequest request;
  request.mutable_resume()->set_token(lost.facts_.resume_token());
  std::unique_ptr<Stream> stream;
  const bool answered = test::Becomes([&] {
    stream = std::make_unique<Stream>(server, door);
    stream->open_ = lost.open_;
    stream->Open(request);
    return stream->opened() || stream->Finish().code != grpc::StatusCode::UNAVAILABLE;
  });
  EXPECT_TRUE(answered);
  return stream;
}

Stream::~Stream() {
  if (stream_ == nullptr || ended_) return;
  context_.TryCancel();
  static_cast<void>(stream_->Finish());
}

bool Stream::Write(const v1::SessionRequest& request, bool sent) {
  if (stream_ != nullptr) return stream_->Write(request);
  v1::LocalRequest wrapped;
  *wrapped.mutable_session() = Share(request, sent);
  return caller_ != nullptr && caller_->Send(wrapped);
}

v1::SessionRequest Stream::Share(const v1::SessionRequest& request, bool unless_it_fits) {
  if (request.has_step()) shared_.reset();
  const v1::SessionStep& step = request.step();
  const bool known = step.layer() >= 0 && step.layer() < open_.layers_size();
  if (!request.has_step() || !known) return request;
  const v1::SessionLayer& layer = open_.layers(static_cast<int>(step.layer()));
  const std::int64_t dim = layer.value_head_dim() == 0 ? layer.head_dim() : layer.value_head_dim();
  // Tests of limits send sizes whose product is no 64-bit number; such a step is refused and has no result.
  const double values = static_cast<double>(open_.rows()) * static_cast<double>(layer.heads()) *
                        static_cast<double>(step.query_length()) * static_cast<double>(dim);
  if (!(values >= 0 && values < 1e9)) return request;
  const auto queries = static_cast<std::size_t>(open_.rows() * layer.heads() * step.query_length());
  const auto value_dim = static_cast<std::size_t>(dim);
  const v1::Dtype type = step.output_dtype() == v1::DTYPE_UNSPECIFIED ? step.dtype() : step.output_dtype();
  Shared shared;
  shared.output_bytes = queries * value_dim * SizeOf(type);
  if (step.return_log_sum_exp()) shared.log_sum_exp_bytes = queries * sizeof(float);
  const std::size_t sent = request.q().size() + request.k().size() + request.v().size();
  const std::size_t answered = shared.output_bytes + shared.log_sum_exp_bytes;
  if ((unless_it_fits || ++steps_ % 3 != 0) && std::max(sent, answered) < kMostSent) return request;
  const std::size_t bytes = sent + answered + std::size_t{5} * 64;
  if (bytes > region_bytes_) {
    region_bytes_ = 2 * bytes;
    region_ = std::make_unique<test::RawRegion>(caller_->raw(), region_bytes_);
  }
  v1::SessionRequest made = request;
  std::uint64_t offset = 0;
  const auto place = [&](std::size_t size) {
    const v1::SharedTensor tensor = region_->At(offset);
    offset += (size + 63) / 64 * 64;
    return tensor;
  };
  const auto put = [&](std::string* tensor, v1::SharedTensor* at) {
    *at = place(tensor->size());
    std::memcpy(region_->data() + at->offset(), tensor->data(), tensor->size());
    tensor->clear();
  };
  if (!request.q().empty()) put(made.mutable_q(), made.mutable_step()->mutable_q_shared());
  if (!request.k().empty()) put(made.mutable_k(), made.mutable_step()->mutable_k_shared());
  if (!request.v().empty()) put(made.mutable_v(), made.mutable_step()->mutable_v_shared());
  if (shared.output_bytes > 0) {
    *made.mutable_step()->mutable_output_shared() = shared.output = place(shared.output_bytes);
  }
  if (shared.log_sum_exp_bytes > 0) {
    *made.mutable_step()->mutable_log_sum_exp_shared() = shared.log_sum_exp = place(shared.log_sum_exp_bytes);
  }
  shared_ = shared;
  return made;
}

bool Stream::Read() {
  if (stream_ != nullptr) return stream_->Read(&reply_);
  const std::optional<v1::LocalReply> got = caller_ != nullptr ? caller_->Receive() : std::nullopt;
  if (got.has_value() && got->has_session_end()) {
    const v1::LocalSessionEnd& end = got->session_end();
    told_ = {static_cast<grpc::StatusCode>(end.code()), end.message(), end.detail()};
    return false;
  }
  if (!got.has_value()) return false;
  EXPECT_TRUE(got->has_session()) << got->DebugString();
  reply_ = got->session();
  if (!shared_.has_value() || !reply_.has_result() || reply_.result().code() != 0) return true;
  EXPECT_EQ(reply_.output() + reply_.log_sum_exp(), "");
  reply_.set_output(region_->Read(shared_->output, shared_->output_bytes));
  reply_.set_log_sum_exp(region_->Read(shared_->log_sum_exp, shared_->log_sum_exp_bytes));
  return true;
}

const v1::SessionStepResult& Stream::Ask(const v1::SessionRequest& request, bool sent) {
  EXPECT_TRUE(Write(request, sent));
  EXPECT_TRUE(Read());
  EXPECT_TRUE(reply_.has_result()) << reply_.DebugString();
  return reply_.result();
}

void Stream::SayClose() {
  if (stream_ != nullptr) {
    v1::SessionRequest close;
    close.mutable_close();
    stream_->Write(close);
  } else if (caller_ != nullptr) {
    v1::LocalRequest close;
    close.mutable_session_close();
    EXPECT_TRUE(caller_->Send(close));
  }
}

SessionEnd Stream::HalfClose() {
  if (stream_ == nullptr || !facts_.resume_token().empty()) SayClose();
  if (stream_ != nullptr) stream_->WritesDone();
  return Finish();
}

SessionEnd Stream::Finish() {
  ended_ = true;
  while (!told_.has_value() && Read()) continue;
  if (stream_ == nullptr) {
    return told_.has_value() ? *told_ : SessionEnd{grpc::StatusCode::UNAVAILABLE, "the connection is gone", {}};
  }
  if (told_.has_value()) return *told_;
  const grpc::Status status = stream_->Finish();
  told_ = {status.error_code(), status.error_message(), DetailOf(status)};
  return *told_;
}

void Stream::Cancel() {
  context_.TryCancel();
  caller_.reset();
}

v1::SessionLayer Layer(v1::SessionLayerKind kind, std::int64_t head_dim, std::int64_t value_head_dim,
                       std::int64_t kv_heads) {
  v1::SessionLayer layer;
  layer.set_kind(kind);
  layer.set_heads(kHeads);
  layer.set_kv_heads(kv_heads);
  layer.set_head_dim(head_dim);
  layer.set_value_head_dim(value_head_dim);
  if (kind == v1::SESSION_LAYER_KIND_SELF) layer.set_table("decoder");
  return layer;
}

v1::SessionOpen OpenOf(std::int64_t rows, std::int64_t sources, v1::Dtype dtype) {
  v1::SessionOpen open;
  open.set_model(kModel);
  open.set_rows(rows);
  open.set_dtype(dtype);
  open.set_max_tokens(200);
  *open.add_layers() = Layer(v1::SESSION_LAYER_KIND_SELF, 16, 0);
  *open.add_layers() = Layer(v1::SESSION_LAYER_KIND_SELF, 5, 3, 1);
  open.mutable_layers(1)->set_scale(0.5F);
  if (sources > 0) {
    open.set_sources(sources);
    open.set_max_source_tokens(150);
    *open.add_layers() = Layer(v1::SESSION_LAYER_KIND_CROSS, 8, 16);
  }
  return open;
}

v1::SessionRequest TokenStep(std::uint64_t number, std::int64_t rows, std::int64_t tokens) {
  v1::SessionRequest request;
  v1::SessionStep& step = *request.mutable_step();
  step.set_step(number);
  step.set_dtype(v1::DTYPE_FP32);
  step.set_key_length(tokens);
  step.set_query_length(tokens);
  const std::int64_t count = rows * kHeads * tokens * 16;
  request.set_q(RandomFloats(count, 1));
  request.set_k(RandomFloats(count, 2));
  request.set_v(RandomFloats(count, 3));
  return request;
}

}  // namespace attnd::e2e
