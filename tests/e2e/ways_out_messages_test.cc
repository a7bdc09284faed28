// The ways out of every method of every service, as the descriptors list them: a new method without a row here fails.
// First of all methods with one message and one answer, then of calls whose message has not come. What computes:
// ways_out_test.cc.

#include <array>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "attnd/v1/local.pb.h"
#include "attnd/v1/model.pb.h"
#include "attnd/v1/server.pb.h"
#include "attnd/v1/session.pb.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "raw_stream.h"
#include "relay.h"
#include "wait.h"
#include "ways_out_support.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;
using std::chrono::milliseconds;
using test::Becomes;

// A method with one message and one answer.
struct Row {
  std::string message;   // valid
  StatusCode code;       // of its answer
  std::string refused;   // a message that is refused
  StatusCode why;        // how; OK: the method refuses none
  StatusCode malformed;  // how bytes are refused that are no message
};

v1::UploadTableRequest Upload(std::int64_t heads) {
  v1::UploadTableRequest request;
  request.set_model("uploaded");
  request.set_replace(true);
  request.mutable_table()->set_heads(heads);
  request.mutable_table()->mutable_t5()->set_num_buckets(4);
  request.mutable_table()->mutable_t5()->set_max_distance(6);
  for (int i = 0; i < 4 * kHeads; ++i) request.mutable_table()->mutable_t5()->add_values(1);
  return request;
}

template <typename Request>
std::string Named(const char* name) {
  Request request;
  request.set_name(name);
  return request.SerializeAsString();
}

std::map<std::string, Row> Rows() {
  v1::GetModelRequest values;
  values.set_name(kModel);
  values.set_include_values(true);
  v1::GetBiasRequest bias;
  bias.set_model(kModel);
  bias.set_query_count(300);
  bias.set_key_count(300);
  v1::GetBiasRequest too_large = bias;
  too_large.set_query_count(std::int64_t{1} << 40);
  v1::EvictSessionRequest nobody;
  nobody.set_id(12345);
  const std::string unknown_model = Named<v1::GetModelRequest>("no-such");
  constexpr StatusCode kOk = StatusCode::OK, kInvalid = StatusCode::INVALID_ARGUMENT, kNone = StatusCode::NOT_FOUND;
  const std::string page(
      "\x12\x02"
      "ab",
      4);  // not a page token
  return {
      {"attnd.v1.ModelService.ListModels", {"", kOk, page, kInvalid, kInvalid}},
      {"attnd.v1.ModelService.GetModel", {values.SerializeAsString(), kOk, unknown_model, kNone, kInvalid}},
      {"attnd.v1.ModelService.LoadModel",
       {Named<v1::LoadModelRequest>("no-such"), kInvalid, Named<v1::LoadModelRequest>(".."), kInvalid, kInvalid}},
      {"attnd.v1.ModelService.UnloadModel",
       {Named<v1::UnloadModelRequest>("no-such"), kNone, Named<v1::UnloadModelRequest>(".."), kInvalid, kInvalid}},
      {"attnd.v1.ModelService.ReloadModel",
       {Named<v1::ReloadModelRequest>(kModel), StatusCode::FAILED_PRECONDITION,
        Named<v1::ReloadModelRequest>("no-such"), kNone, kInvalid}},
      {"attnd.v1.ModelService.UploadTable",
       {Upload(kHeads).SerializeAsString(), kOk, Upload(7).SerializeAsString(), kInvalid, kInvalid}},
      {"attnd.v1.ModelService.GetBias",
       {bias.SerializeAsString(), kOk, too_large.SerializeAsString(), kInvalid, kInvalid}},
      {"attnd.v1.ServerService.GetServerInfo", {"", kOk, "", kOk, StatusCode::INTERNAL}},
      {"attnd.v1.SessionService.ListSessions", {"", kOk, "", kOk, StatusCode::UNIMPLEMENTED}},
      {"attnd.v1.SessionService.EvictSession",
       {nobody.SerializeAsString(), kNone, nobody.SerializeAsString(), kNone, StatusCode::UNIMPLEMENTED}},
  };
}

// The methods of all services of this package.
std::vector<const google::protobuf::MethodDescriptor*> Methods() {
  std::vector<const google::protobuf::MethodDescriptor*> methods;
  for (const google::protobuf::FileDescriptor* file :
       {v1::ComputeAttentionRequest::descriptor()->file(), v1::GetModelRequest::descriptor()->file(),
        v1::GetServerInfoRequest::descriptor()->file(), v1::SessionRequest::descriptor()->file(),
        v1::LocalRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) methods.push_back(file->service(s)->method(m));
    }
  }
  return methods;
}

std::string PathOf(const google::protobuf::MethodDescriptor& method) {
  return "/" + method.service()->full_name() + "/" + method.name();
}

TEST(WaysOutOfMethodsTest, EveryMethodHasARow) {
  const std::map<std::string, Row> rows = Rows();
  // Doors of ways_out_test.cc, and kinds of local messages that begin none of them.
  const std::set<std::string> computing = {"attnd.v1.AttentionService.ComputeAttention",
                                           "attnd.v1.AttentionService.StreamAttention",
                                           "attnd.v1.SessionService.Attend"};
  std::size_t found = 0;
  for (const google::protobuf::MethodDescriptor* method : Methods()) {
    ++found;
    EXPECT_EQ(rows.count(method->full_name()) + computing.count(method->full_name()), 1U) << method->full_name();
  }
  EXPECT_EQ(found, rows.size() + computing.size()) << "a row of a method that is gone";
  const std::set<std::string> local = {"hello", "call", "cancel", "session", "session_close"};
  const google::protobuf::Descriptor& message = *v1::LocalRequest::descriptor();
  for (int i = 0; i < message.field_count(); ++i) {
    EXPECT_EQ(local.count(message.field(i)->name()), 1U) << message.field(i)->name();
  }
}

// How a call may end before it is answered.
struct Way {
  const char* name;
  std::function<void(RawStream& call, std::unique_ptr<Relay>& relay)> take;
};

TEST(WaysOutOfMethodsTest, NothingIsLeftOfAnyCall) {
  HeldServer server;
  const Way kWays[] = {
      {"cancelled", [](RawStream& call, std::unique_ptr<Relay>&) { call.Cancel(); }},
      {"the connection is lost", [](RawStream&, std::unique_ptr<Relay>& relay) { relay.reset(); }},
  };
  for (const auto& [name, row] : Rows()) {
    SCOPED_TRACE(name);
    const auto* const method = google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(name);
    ASSERT_NE(method, nullptr);
    const std::string path = PathOf(*method);
    const auto call = [&](const std::string& message, StatusCode code) {
      RawStream stream(server.test().channel(), path);
      EXPECT_TRUE(stream.Write(message));
      stream.WritesDone();
      const grpc::Status status = stream.Finish();
      EXPECT_EQ(status.error_code(), code) << status.error_message();
    };
    call(row.message, row.code);
    server.ExpectIdle();
    if (row.why != StatusCode::OK) call(row.refused, row.why);
    server.ExpectIdle();
    call("\xff\xff", row.malformed);
    server.ExpectIdle();
    for (const Way& way : kWays) {
      SCOPED_TRACE(way.name);
      for (const bool with_message : {false, true}) {
        auto relay = std::make_unique<Relay>(server.address());
        RawStream stream(ChannelOfSmallWindows(relay->address()), path);
        if (with_message) {
          stream.Write(row.message);
          stream.WritesDone();
        }
        way.take(stream, relay);
        stream.Finish();
        server.ExpectIdle();
      }
    }
    for (const bool with_message : {false, true}) {
      RawStream stream(server.test().channel(), path, milliseconds(with_message ? 1 : 20));
      if (with_message) {
        stream.Write(row.message);
        stream.WritesDone();
      }
      stream.Finish();
      server.ExpectIdle();
    }
    call(row.message, row.code);
    server.ExpectIdle();
  }
}

// Calls whose message is awaited, by the methods that compute. The server receives one message at a time.
class AwaitedMessageTest : public testing::TestWithParam<Door> {
 protected:
  static const char* path() {
    if (GetParam() == Door::kUnary) return "/attnd.v1.AttentionService/ComputeAttention";
    return GetParam() == Door::kStream ? "/attnd.v1.AttentionService/StreamAttention"
                                       : "/attnd.v1.SessionService/Attend";
  }
  std::shared_ptr<grpc::Channel> NewChannel() {
    relay_ = std::make_unique<Relay>(server_.address());
    return ChannelOfSmallWindows(relay_->address());
  }
  // Expects that the next caller is served, and that nothing is held then.
  void ExpectAsBefore() {
    const std::unique_ptr<Caller> next = Caller::Create(server_, GetParam());
    next->Send(Message::kLarge);
    EXPECT_EQ(next->Answer(), StatusCode::OK);
    EXPECT_EQ(next->Close(), StatusCode::OK);
    server_.ExpectIdle();
    EXPECT_TRUE(Becomes([&] { return server_.waiting() == 0; }));
    EXPECT_EQ(server_.open_sessions(), 0);
  }

  HeldServer server_;
  std::unique_ptr<Relay> relay_;
};
INSTANTIATE_TEST_SUITE_P(, AwaitedMessageTest, testing::Values(Door::kUnary, Door::kStream, Door::kSession),
                         [](const auto& info) { return NameOf(info.param); });

TEST_P(AwaitedMessageTest, EndsWithoutAMessage) {
  RawStream call(NewChannel(), path());
  call.WritesDone();
  EXPECT_EQ(call.Finish().error_code(), GetParam() == Door::kStream ? StatusCode::OK : StatusCode::INVALID_ARGUMENT);
  ExpectAsBefore();
}

TEST_P(AwaitedMessageTest, Cancelled) {
  RawStream call(NewChannel(), path());
  if (GetParam() != Door::kStream) {  // whose pieces alone count
    EXPECT_TRUE(Becomes([&] { return server_.server().calls_in_flight() == 1; }));
  }
  call.Cancel();
  EXPECT_EQ(call.Finish().error_code(), StatusCode::CANCELLED);
  ExpectAsBefore();
}

TEST_P(AwaitedMessageTest, ConnectionLost) {
  RawStream call(NewChannel(), path());
  if (GetParam() != Door::kStream) {
    EXPECT_TRUE(Becomes([&] { return server_.server().calls_in_flight() == 1; }));
  }
  relay_.reset();
  EXPECT_EQ(call.Finish().error_code(), StatusCode::UNAVAILABLE);
  ExpectAsBefore();
}

TEST_P(AwaitedMessageTest, DeadlinePasses) {
  RawStream call(NewChannel(), path(), milliseconds(100));
  EXPECT_EQ(call.Finish().error_code(), StatusCode::DEADLINE_EXCEEDED);
  ExpectAsBefore();
}

// The second call waits for the place of the first one, in every way until it ends.
TEST_P(AwaitedMessageTest, EndsWhileItWaitsToBeReceived) {
  if (GetParam() == Door::kSession) GTEST_SKIP() << "sessions do not wait to be received";
  for (const char* way : {"cancelled", "deadline", "lost"}) {
    SCOPED_TRACE(way);
    RawStream first(server_.test().channel(), path());
    if (GetParam() == Door::kUnary) {
      EXPECT_TRUE(Becomes([&] { return server_.server().calls_in_flight() == 1; }));
    } else {
      // A first piece that announces another keeps its place.
      v1::StreamAttentionRequest piece = PieceOf(1, ValidRequest());
      piece.set_more(true);
      EXPECT_TRUE(first.Write(piece.SerializeAsString()));
      EXPECT_TRUE(first.Read().has_value());
    }
    const bool is_late = std::string(way) == "deadline";
    RawStream second(NewChannel(), path(),
                     is_late ? std::optional(absl::ToChronoMilliseconds(test::Patience() / 100)) : std::nullopt);
    EXPECT_TRUE(Becomes([&] { return server_.waiting() == 1; }));
    if (std::string(way) == "cancelled") second.Cancel();
    if (std::string(way) == "lost") relay_.reset();
    second.Finish();
    EXPECT_TRUE(Becomes([&] { return server_.waiting() == 0; })) << "it waits still";
    if (GetParam() == Door::kUnary) {
      EXPECT_TRUE(Becomes([&] { return server_.server().calls_in_flight() == 1; }));
    }
    first.Cancel();
    first.Finish();
    ExpectAsBefore();
  }
}

}  // namespace
}  // namespace attnd::e2e
