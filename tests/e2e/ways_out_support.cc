#include "ways_out_support.h"

#include <cstdlib>
#include <utility>
#include <vector>

#include "attnd/v1/session.pb.h"
#include "google/protobuf/unknown_field_set.h"
#include "gtest/gtest.h"
#include "kernel/registry.h"
#include "local_caller.h"
#include "raw_stream.h"
#include "relay.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using test::Becomes;

constexpr std::uint64_t kId = 7;
constexpr char kNoise[] = "\xff\xff";
// Small enough for a datagram.
constexpr std::int64_t kDim = 2;
constexpr Shape kLarge{.batch = 1, .query_length = 1000, .key_length = 1000, .head_dim = kDim};
constexpr std::int64_t kWide = 2048;  // elements of a value in a large result
// Few enough that a result takes no time.
constexpr std::int64_t kManyRows = 120, kFewRows = 3;

std::vector<const kernel::Kernel*>& Kernels() {
  // The list itself is not const, only what it is seen through.
  return const_cast<std::vector<const kernel::Kernel*>&>(kernel::AvailableKernels());
}

std::int64_t RowsOfLargeResult(Door door) { return IsLocal(door) ? kFewRows : kManyRows; }

v1::ComputeAttentionRequest RequestOf(Door door, Message message) {
  if (message == Message::kLarge) return ValidRequest(kLarge);
  v1::ComputeAttentionRequest request = ValidRequest({.batch = 1, .query_length = 2, .key_length = 3, .head_dim = 4});
  if (message == Message::kRefused) request.set_head_dim(0);
  if (message != Message::kLargeResult) return request;
  request = ValidRequest({.batch = 1, .query_length = RowsOfLargeResult(door), .key_length = 1, .head_dim = 1});
  request.set_value_head_dim(kWide);
  request.set_v(RandomFloats(kHeads * kWide, 1));
  return request;
}

// What a session is told: an opening, and steps that each succeed or may be sent again.
class SessionScript {
 public:
  SessionScript(Door door, std::optional<std::chrono::milliseconds> timeout) : door_(door), timeout_(timeout) {}

  static v1::SessionRequest Open() {
    v1::SessionRequest request;
    v1::SessionOpen& open = *request.mutable_open();
    open.set_rows(1);
    open.set_dtype(v1::DTYPE_FP32);
    open.set_max_tokens(8000);
    for (const auto& [dim, value_dim] : {std::pair(kDim, kDim), std::pair(std::int64_t{1}, kWide)}) {
      v1::SessionLayer& layer = *open.add_layers();
      layer.set_kind(v1::SESSION_LAYER_KIND_SELF);
      layer.set_bias(v1::BIAS_NONE);
      layer.set_heads(kHeads);
      layer.set_head_dim(dim);
      layer.set_value_head_dim(value_dim);
    }
    return request;
  }

  v1::SessionRequest Step(Message message) {
    v1::SessionRequest request;
    v1::SessionStep& step = *request.mutable_step();
    step.set_step(++sent_);
    step.set_dtype(v1::DTYPE_FP32);
    if (timeout_.has_value()) {
      step.mutable_timeout()->set_seconds(timeout_->count() / 1000);
      step.mutable_timeout()->set_nanos(static_cast<std::int32_t>(timeout_->count() % 1000 * 1'000'000));
    }
    const bool wide = message == Message::kLargeResult;
    const std::int64_t tokens = message == Message::kLarge ? kLarge.key_length : 1;
    const std::int64_t queries = wide ? RowsOfLargeResult(door_) : tokens;
    const std::int64_t dim = wide ? 1 : kDim;
    step.set_layer(message == Message::kRefused ? 99 : wide ? 1 : 0);
    step.set_key_length(tokens);
    step.set_query_length(queries);
    request.set_q(RandomFloats(kHeads * queries * dim, 1));
    request.set_k(RandomFloats(kHeads * tokens * dim, 2));
    request.set_v(RandomFloats(kHeads * tokens * (wide ? kWide : dim), 3));
    return request;
  }
  v1::SessionRequest Cancel() const {
    v1::SessionRequest request;
    request.mutable_cancel()->set_step(sent_);
    return request;
  }
  // The code of an answer.
  StatusCode Take(const v1::SessionReply& reply) {
    if (reply.has_opened()) return StatusCode::OK;
    if (reply.result().code() != 0) --sent_;  // the number is free again
    return static_cast<StatusCode>(reply.result().code());
  }

 private:
  const Door door_;
  const std::optional<std::chrono::milliseconds> timeout_;
  std::uint64_t sent_ = 0;
};

const char* MethodOf(Door door) {
  if (door == Door::kUnary) return "/attnd.v1.AttentionService/ComputeAttention";
  return door == Door::kStream ? "/attnd.v1.AttentionService/StreamAttention" : "/attnd.v1.SessionService/Attend";
}

class GrpcCaller final : public Caller {
 public:
  GrpcCaller(HeldServer& server, Door door, std::optional<std::chrono::milliseconds> timeout)
      : door_(door),
        script_(door, timeout),
        relay_(std::make_unique<Relay>(server.address())),
        // The time of a step is its own, not the stream's.
        stream_(ChannelOfSmallWindows(relay_->address()), MethodOf(door), IsSession(door) ? std::nullopt : timeout) {
    if (!IsSession(door)) return;
    EXPECT_TRUE(stream_.Write(SessionScript::Open().SerializeAsString()));
    EXPECT_EQ(Answer(), StatusCode::OK);
  }

  void Send(Message message) override { Send(message, kId); }

  StatusCode Answer() override {
    const std::optional<std::string> answer = stream_.Read();
    if (!answer.has_value() || door_ == Door::kUnary) return stream_.Finish().error_code();
    if (IsSession(door_)) {
      v1::SessionReply reply;
      EXPECT_TRUE(reply.ParseFromString(*answer));
      return reply.has_going_away() ? Answer() : script_.Take(reply);
    }
    v1::StreamAttentionResponse response;
    EXPECT_TRUE(response.ParseFromString(*answer));
    EXPECT_EQ(response.id(), expected_id_++);
    return static_cast<StatusCode>(response.code());
  }

  void Cancel() override { stream_.Cancel(); }
  void Break() override { relay_.reset(); }

  StatusCode Close() override {
    if (!std::exchange(closed_, true)) stream_.WritesDone();
    return stream_.Finish().error_code();
  }

  int Flood() override {
    const int messages = door_ == Door::kUnary ? 1 : 2;
    for (int i = 0; i < messages; ++i) Send(Message::kLargeResult, kId + static_cast<std::uint64_t>(i));
    return messages;
  }

  bool outlives_an_error() const override { return door_ != Door::kUnary; }

 private:
  void Send(Message message, std::uint64_t id) {
    expected_id_ = kId;
    EXPECT_TRUE(stream_.Write(Bytes(message, id))) << "it was not taken";
    if (door_ == Door::kUnary && !std::exchange(closed_, true)) stream_.WritesDone();
  }
  std::string Bytes(Message message, std::uint64_t id) {
    if (message == Message::kUndecodable) return kNoise;
    if (IsSession(door_)) return script_.Step(message).SerializeAsString();
    const v1::ComputeAttentionRequest request = RequestOf(door_, message);
    return door_ == Door::kUnary ? request.SerializeAsString() : PieceOf(id, request).SerializeAsString();
  }

  const Door door_;
  SessionScript script_;
  std::unique_ptr<Relay> relay_;
  RawStream stream_;
  bool closed_ = false;  // no message follows
  std::uint64_t expected_id_ = kId;
};

class LocalDoorCaller final : public Caller {
 public:
  LocalDoorCaller(HeldServer& server, Door door, std::optional<std::chrono::milliseconds> timeout)
      : door_(door), timeout_(timeout), script_(door, timeout) {
    caller_.emplace(server.local_path());
    EXPECT_EQ(caller_->Greet().code(), 0);
    if (!IsSession(door)) return;
    EXPECT_TRUE(Send(Wrapped(SessionScript::Open().SerializeAsString()), true));
    EXPECT_EQ(Answer(), StatusCode::OK);
  }

  void Send(Message message) override { EXPECT_TRUE(Send(Bytes(message, kId), true)); }

  StatusCode Answer() override {
    const std::optional<v1::LocalReply> reply = caller_->Receive();
    if (!reply.has_value()) return StatusCode::UNAVAILABLE;  // the connection has ended
    if (reply->has_session_end()) {
      end_ = static_cast<StatusCode>(reply->session_end().code());
      return *end_;
    }
    if (reply->has_session()) return reply->session().has_going_away() ? Answer() : script_.Take(reply->session());
    EXPECT_EQ(reply->answer().id(), expected_id_++);
    return static_cast<StatusCode>(reply->answer().code());
  }

  void Cancel() override {
    if (!IsSession(door_)) {
      EXPECT_TRUE(Send(test::CancelOf(kId), true));
    } else {
      EXPECT_TRUE(Send(Wrapped(script_.Cancel().SerializeAsString()), true));
    }
  }
  void Break() override { caller_.reset(); }

  StatusCode Close() override {
    if (!IsSession(door_) || end_.has_value()) {
      caller_.reset();
      return end_.value_or(StatusCode::OK);
    }
    v1::LocalRequest close;
    close.mutable_session_close();
    EXPECT_TRUE(Send(close.SerializeAsString(), true));
    while (!end_.has_value() && Answer() != StatusCode::UNAVAILABLE) continue;
    return end_.value_or(StatusCode::UNKNOWN);
  }

  // Until the socket takes no more, or most of its answers find no room in it.
  int Flood() override {
    int sent = 0;
    while (sent < 40 && Send(Bytes(Message::kLargeResult, kId + static_cast<std::uint64_t>(sent)), false)) ++sent;
    return sent;
  }

  bool outlives_an_error() const override { return true; }
  bool outlives_noise() const override { return !IsSession(door_); }

 private:
  bool Send(const std::string& bytes, bool wait) {
    expected_id_ = kId;
    return caller_->raw().Send(bytes, {}, wait);
  }
  // A local request with a field of these bytes.
  static std::string Wrapped(const std::string& session) {
    return Field(v1::LocalRequest::kSessionFieldNumber, session);
  }
  static std::string Field(int number, const std::string& bytes) {
    google::protobuf::UnknownFieldSet fields;
    fields.AddLengthDelimited(number, bytes);
    std::string field;
    fields.SerializeToString(&field);
    return field;
  }
  std::string Bytes(Message message, std::uint64_t id) {
    const bool is_noise = message == Message::kUndecodable;
    if (IsSession(door_)) return Wrapped(is_noise ? kNoise : script_.Step(message).SerializeAsString());
    google::protobuf::UnknownFieldSet call;
    call.AddVarint(v1::LocalCall::kIdFieldNumber, id);
    std::string bytes;
    call.SerializeToString(&bytes);
    if (is_noise) {
      bytes += Field(v1::LocalCall::kRequestFieldNumber, kNoise);
      return Field(v1::LocalRequest::kCallFieldNumber, bytes);
    }
    v1::LocalRequest request = test::CallOf(id, RequestOf(door_, message));
    if (timeout_.has_value()) {
      request.mutable_call()->mutable_timeout()->set_seconds(timeout_->count() / 1000);
      request.mutable_call()->mutable_timeout()->set_nanos(static_cast<int>(timeout_->count() % 1000 * 1'000'000));
    }
    return request.SerializeAsString();
  }

  const Door door_;
  const std::optional<std::chrono::milliseconds> timeout_;
  SessionScript script_;
  std::optional<test::LocalCaller> caller_;
  std::optional<StatusCode> end_;  // of the session
  std::uint64_t expected_id_ = kId;
};

}  // namespace

KernelInFront::KernelInFront() {
  unsetenv("ATTND_KERNEL");  // which would choose another
  Kernels().insert(Kernels().begin(), &held_.kernel());
}

KernelInFront::~KernelInFront() { Kernels().erase(Kernels().begin()); }

HeldServer::HeldServer(absl::Duration drain) {
  server::Options options = TestOptions();
  options.listen.push_back("unix:" + folder_.path() + "/s");
  options.threads = 1;
  options.drain = drain;
  options.limits.max_reads = 1;
  options.stall = absl::InfiniteDuration();
  server_ = std::make_unique<TestServer>(options);
  // Its last step is taken by the computing thread.
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(server_->Compute(ValidRequest(kLarge), &response).ok());
  ExpectIdle();
}

v1::GetServerInfoResponse HeldServer::Info() {
  v1::GetServerInfoResponse info;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  const grpc::Status status = server_->info().GetServerInfo(&context, {}, &info);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return info;
}

std::int64_t HeldServer::waiting() { return Info().queue().waiting(); }
std::int64_t HeldServer::open_sessions() { return Info().sessions().open(); }

HeldServer::Held HeldServer::held() { return {server().calls_in_flight(), server().inflight_bytes(), waiting()}; }

void HeldServer::ExpectHeld(const Held& expected) {
  EXPECT_TRUE(Becomes([&] { return held() == expected; })) << held() << "; expected " << expected;
}

void HeldServer::ExpectIdle() {
  const auto idle = [&] {
    return server().calls_in_flight() == 0 && server().inflight_bytes() == 0 &&
           server::AttentionEngine::received_bytes() == 0;
  };
  EXPECT_TRUE(Becomes(idle)) << server().calls_in_flight() << " calls, " << server().inflight_bytes() << " bytes, "
                             << server::AttentionEngine::received_bytes() << " bytes of messages";
}

const char* NameOf(Door door) {
  switch (door) {
    case Door::kUnary:
      return "Unary";
    case Door::kStream:
      return "Stream";
    case Door::kSession:
      return "Session";
    case Door::kLocalCall:
      return "LocalCall";
    case Door::kLocalSession:
      return "LocalSession";
  }
  return "";
}

std::int64_t FloodedBytes(Door door) { return kHeads * RowsOfLargeResult(door) * kWide * std::int64_t{sizeof(float)}; }

std::unique_ptr<Caller> Caller::Create(HeldServer& server, Door door,
                                       std::optional<std::chrono::milliseconds> timeout) {
  if (IsLocal(door)) return std::make_unique<LocalDoorCaller>(server, door, timeout);
  return std::make_unique<GrpcCaller>(server, door, timeout);
}

}  // namespace attnd::e2e
