// Every allocation of the server's code fails once, one after another, in each way that a call comes. The call gets
// RESOURCE_EXHAUSTED, nothing is left of it, and the next one is as good as ever. tests/support/failing_allocator.h
// says which allocations those are. What leaks, LeakSanitizer finds, with which this is linked.

#include <sys/mman.h>

#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "e2e_support.h"
#include "failing_allocator.h"
#include "gmock/gmock.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "gtest/gtest.h"
#include "local_caller.h"
#include "memory/no_memory.h"
#include "raw_region.h"
#include "server/shm/shared_memory.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::no_memory_test {
namespace {

using e2e::PieceOf;
using e2e::ValidRequest;
using grpc::StatusCode;
using test::Becomes;

// How a call has ended.
struct Ended {
  int code = 0;  // grpc::StatusCode, or kClosed
  std::string message;
};
// A local connection that the server has closed.
constexpr int kClosed = -1;

Ended EndedWith(const grpc::Status& status) { return {status.error_code(), status.error_message()}; }

bool IsExhausted(const Ended& ended) { return ended.code == static_cast<int>(StatusCode::RESOURCE_EXHAUSTED); }

// Keys and values are packed, and tiles computed, on the scheduler's threads.
v1::ComputeAttentionRequest Large() {
  v1::ComputeAttentionRequest request =
      ValidRequest({.batch = 1, .query_length = 300, .key_length = 300, .head_dim = 32});
  request.set_return_log_sum_exp(true);
  return request;
}

// A query against many keys, which are split among the threads.
v1::ComputeAttentionRequest Split() {
  return ValidRequest({.batch = 1, .query_length = 1, .key_length = 8000, .head_dim = 32});
}

class NoMemoryTest : public testing::Test {
 protected:
  NoMemoryTest() {
    std::ofstream(folder_.path() + "/model.json")
        << R"({"architecture": "t5", "tables": {"decoder": {"rule": "t5", "num_buckets": 4, "max_distance": 5, )"
        << R"("values": [[1, 2], [3, 4], [5, 6], [7, 8]]}}})";
    server::Options options = e2e::TestOptions();
    options.listen = {"127.0.0.1:0", "unix:" + sockets_.path() + "/s"};
    options.model_root = folder_.path();
    server_ = std::make_unique<e2e::TestServer>(options);
  }

  std::string local_path() const { return sockets_.path() + "/s.shm"; }
  server::Server& server() { return server_->server(); }

  // Nothing is held by a call.
  void ExpectIdle() {
    EXPECT_TRUE(Becomes([&] { return server().calls_in_flight() == 0; })) << server().calls_in_flight();
    const auto held = [&] {
      server().TakePeakInflightBytes();
      return server().TakePeakInflightBytes();
    };
    EXPECT_TRUE(Becomes([&] { return held() == 0; })) << held();
  }

  // `call` makes one call and checks the result where it has one. Whatever fails, `may` tells whether it may end so.
  using Call = std::function<Ended()>;
  using May = std::function<bool(const Ended&)>;
  void FailEach(const Call& call, const May& may = IsExhausted) {
    // What is made once and stays is not a call's.
    ASSERT_EQ(call().code, 0);
    for (const bool all : {false, true}) {
      std::int64_t exhausted = 0;
      for (std::int64_t number = 1;; ++number) {
        ASSERT_LT(number, 5000);
        test::FailAllocation(number, all);
        const Ended ended = call();
        ExpectIdle();
        const std::string where = test::StopFailing();
        SCOPED_TRACE(testing::Message() << (all ? "all from " : "") << number << ", " << where);
        EXPECT_TRUE(ended.code == 0 || may(ended)) << ended.code << ": " << ended.message;
        EXPECT_TRUE(ended.code <= 0 || !ended.message.empty());
        exhausted += IsExhausted(ended) ? 1 : 0;
        const Ended again = call();
        EXPECT_EQ(again.code, 0) << again.message;
        ExpectIdle();
        if (where.empty() || HasFailure()) break;
      }
      EXPECT_GT(exhausted, 0);
      RecordProperty(all ? "exhausted_all" : "exhausted_one", static_cast<int>(exhausted));
    }
  }

  Ended Compute(const v1::ComputeAttentionRequest& request) {
    v1::ComputeAttentionResponse response;
    const grpc::Status status = server_->Compute(request, &response);
    if (status.ok()) e2e::ExpectMatchesReference(request, response);
    return EndedWith(status);
  }

  // A call of a method by its name, whose answer is not looked at.
  Ended Raw(const std::string& method, const google::protobuf::MessageLite& request) {
    const grpc::Slice bytes(request.SerializeAsString());
    std::string reply;
    return EndedWith(e2e::RawCall(server_->channel(), method, {bytes}, &reply));
  }

  const test::TempFolder folder_;
  const test::TempFolder sockets_;
  std::unique_ptr<e2e::TestServer> server_;
};

TEST_F(NoMemoryTest, SmallCall) {
  FailEach([&] { return Compute(ValidRequest()); });
}

TEST_F(NoMemoryTest, LargeCall) {
  const v1::ComputeAttentionRequest request = Large();
  FailEach([&] { return Compute(request); });
}

TEST_F(NoMemoryTest, SplitCall) {
  const v1::ComputeAttentionRequest request = Split();
  FailEach([&] { return Compute(request); });
}

TEST_F(NoMemoryTest, RefusedCall) {
  v1::ComputeAttentionRequest request = ValidRequest();
  request.set_model("no-such-model-under-this-name");
  FailEach([&] {
    Ended ended = Compute(request);
    if (ended.code == static_cast<int>(StatusCode::NOT_FOUND)) ended.code = 0;
    return ended;
  });
}

TEST_F(NoMemoryTest, Stream) {
  const v1::ComputeAttentionRequest requests[] = {ValidRequest(), Large(), ValidRequest({}, 7)};
  FailEach([&] {
    grpc::ClientContext context;
    const auto stream = server_->attention().StreamAttention(&context);
    for (std::uint64_t id = 0; id < 3; ++id) stream->Write(PieceOf(id, requests[id]));
    stream->WritesDone();
    Ended ended;
    int answers = 0;
    v1::StreamAttentionResponse answer;
    while (stream->Read(&answer)) {
      ++answers;
      if (answer.code() != 0) {
        ended = {answer.code(), answer.message()};
        continue;
      }
      v1::ComputeAttentionResponse response = answer.result();
      response.set_output(answer.output());
      response.set_log_sum_exp(answer.log_sum_exp());
      e2e::ExpectMatchesReference(requests[answer.id()], response);
    }
    const grpc::Status status = stream->Finish();
    if (!status.ok()) return EndedWith(status);
    EXPECT_EQ(answers, 3) << "a stream that ends well has answered all";
    return ended;
  });
}

TEST_F(NoMemoryTest, Upload) {
  v1::UploadTableRequest request;
  request.set_model("uploaded");
  request.set_replace(true);
  v1::Table& table = *request.mutable_table();
  table.set_name("decoder");
  table.set_heads(2);
  v1::T5Buckets& rule = *table.mutable_t5();
  rule.set_num_buckets(32);
  rule.set_max_distance(128);
  for (int i = 0; i < 64; ++i) rule.add_values(static_cast<float>(i));
  FailEach([&] { return Raw("/attnd.v1.ModelService/UploadTable", request); });
}

TEST_F(NoMemoryTest, LoadAndUnload) {
  v1::LoadModelRequest load;
  load.set_name("again");
  load.set_path("model.json");
  v1::UnloadModelRequest unload;
  unload.set_name("again");
  FailEach([&] {
    const Ended loaded = Raw("/attnd.v1.ModelService/LoadModel", load);
    // The model may be loaded although there was no memory for the answer.
    if (server().registry().Find("again").ok()) {
      const Ended unloaded = Raw("/attnd.v1.ModelService/UnloadModel", unload);
      if (unloaded.code != 0) {
        static_cast<void>(server().registry().Unload("again"));
        return unloaded;
      }
    }
    return loaded;
  });
}

TEST_F(NoMemoryTest, Reload) {
  v1::ReloadModelRequest request;
  request.set_name("model");
  FailEach([&] { return Raw("/attnd.v1.ModelService/ReloadModel", request); });
}

TEST_F(NoMemoryTest, ReadingModels) {
  v1::GetBiasRequest bias;
  bias.set_model("book");
  bias.set_query_count(8);
  bias.set_key_count(8);
  v1::GetModelRequest get;
  get.set_name("book");
  v1::GetModelRequest values = get;
  values.set_include_values(true);
  FailEach([&] { return Raw("/attnd.v1.ModelService/GetBias", bias); });
  FailEach([&] { return Raw("/attnd.v1.ModelService/GetModel", get); });
  FailEach([&] { return Raw("/attnd.v1.ModelService/GetModel", values); });
  FailEach([&] { return Raw("/attnd.v1.ModelService/ListModels", v1::ListModelsRequest()); });
}

TEST_F(NoMemoryTest, InfoAndHealth) {
  FailEach([&] { return Raw("/attnd.v1.ServerService/GetServerInfo", v1::GetServerInfoRequest()); });
  // A page token of some length is parsed into our memory.
  v1::ListModelsRequest models;
  models.set_page_token(std::string(1000, 'x'));
  FailEach([&] {
    Ended ended = Raw("/attnd.v1.ModelService/ListModels", models);
    if (ended.code == static_cast<int>(StatusCode::INVALID_ARGUMENT)) ended.code = 0;
    return ended;
  });
  v1::GetModelRequest health;  // a string with number 1, as HealthCheckRequest has it
  health.set_name("a-service-whose-name-is-long-enough-for-the-heap");
  FailEach([&] {
    Ended ended = Raw("/grpc.health.v1.Health/Check", health);
    if (ended.code == static_cast<int>(StatusCode::NOT_FOUND)) ended.code = 0;
    return ended;
  });
}

// What the server cannot even refuse ends its connection.
bool IsExhaustedOrClosed(const Ended& ended) { return IsExhausted(ended) || ended.code == kClosed; }

// An answer without memory for words has a code alone.
Ended EndedWith(const std::optional<v1::LocalReply>& reply) {
  if (!reply.has_value()) return {kClosed, ""};
  const v1::LocalAnswer& answer = reply->answer();
  return {answer.code(), answer.code() != 0 && answer.message().empty() ? "no words" : answer.message()};
}

TEST_F(NoMemoryTest, LocalCalls) {
  std::vector<v1::ComputeAttentionRequest> requests = {ValidRequest()};
  // Takes long to prepare, which is then done on another thread. Two bytes an element, so that it fits into a datagram.
  requests.push_back(ValidRequest({.batch = 4200, .query_length = 1, .key_length = 1, .head_dim = 1}));
  requests.back().set_dtype(v1::DTYPE_FP16);
  for (std::string* tensor : {requests.back().mutable_q(), requests.back().mutable_k(), requests.back().mutable_v()}) {
    tensor->assign(tensor->size() / 2, '\0');
  }
  for (const v1::ComputeAttentionRequest& request : requests) {
    FailEach(
        [&] {
          const test::LocalCaller caller(local_path());
          if (caller.Greet().code() != 0) return Ended{kClosed, ""};
          if (!caller.Send(test::CallOf(1, request))) return Ended{kClosed, ""};
          const std::optional<v1::LocalReply> reply = caller.Receive();
          if (reply.has_value() && reply->answer().code() == 0 && request.dtype() == v1::DTYPE_FP32) {
            e2e::ExpectMatchesReference(request, reply->answer().result());
          }
          return EndedWith(reply);
        },
        IsExhaustedOrClosed);
  }
}

// Registers, computes in the region, and releases it.
TEST_F(NoMemoryTest, SharedMemory) {
  const v1::ComputeAttentionRequest request = Large();
  constexpr std::size_t kBytes = std::size_t{1} << 20;
  FailEach(
      [&] {
        const test::LocalCaller caller(local_path());
        if (caller.Greet().code() != 0) return Ended{kClosed, ""};
        const shm::UniqueFd fd = test::SealedMemfd(kBytes);
        shm::Request fixed = test::RegisterRequest(kBytes);
        if (!caller.raw().Send(&fixed, sizeof(fixed), {fd.get()})) return Ended{kClosed, ""};
        std::optional<shm::Reply> reply = caller.raw().Receive();
        if (!reply.has_value()) return Ended{kClosed, ""};
        if (reply->code != 0) return Ended{reply->code, reply->message};
        v1::ComputeAttentionRequest shared = request;
        shared.mutable_output_shared()->set_region(std::string(reply->handle.begin(), reply->handle.end()));
        shared.clear_q();
        shared.clear_k();
        shared.clear_v();
        std::uint64_t offset = request.q().size();
        for (v1::SharedTensor* tensor :
             {shared.mutable_q_shared(), shared.mutable_k_shared(), shared.mutable_v_shared()}) {
          tensor->set_region(shared.output_shared().region());
          tensor->set_offset(offset);
          offset += request.q().size();
        }
        if (!caller.Send(test::CallOf(1, shared))) return Ended{kClosed, ""};
        Ended ended = EndedWith(caller.Receive());
        fixed.operation = shm::Operation::kRelease;
        fixed.handle = reply->handle;
        if (ended.code != 0 || !caller.raw().Send(&fixed, sizeof(fixed))) return ended;
        reply = caller.raw().Receive();
        return reply.has_value() ? Ended{reply->code, reply->message} : Ended{kClosed, ""};
      },
      IsExhaustedOrClosed);
  EXPECT_TRUE(Becomes([&] { return server().shared_memory()->mapped_bytes() == 0; }));
}

// Without the guard gRPC takes the exception for a method that does not exist: what callers saw before there was one.
TEST_F(NoMemoryTest, WithoutTheGuardACallIsAnsweredWrongly) {
  const absl::Cleanup guard = [] { memory::LetNoMemoryThroughForTest(false); };
  ASSERT_EQ(Compute(ValidRequest()).code, 0);
  memory::LetNoMemoryThroughForTest(true);
  test::FailAllocation(1);
  const Ended ended = Compute(ValidRequest());
  EXPECT_NE(test::StopFailing(), "");
  EXPECT_EQ(ended.code, static_cast<int>(StatusCode::UNIMPLEMENTED));
  EXPECT_EQ(ended.message, "");
}

// The bidirectional streams of gRPC's own services: reflection, as any tool asks for it.
TEST_F(NoMemoryTest, Reflection) {
  grpc::reflection::v1::ServerReflectionRequest list;
  list.set_list_services("");
  grpc::reflection::v1::ServerReflectionRequest file;
  file.set_file_containing_symbol("attnd.v1.AttentionService");
  const auto stub = grpc::reflection::v1::ServerReflection::NewStub(server_->channel());
  FailEach(
      [&] {
        grpc::ClientContext context;
        const auto stream = stub->ServerReflectionInfo(&context);
        grpc::reflection::v1::ServerReflectionResponse response;
        for (const auto* request : {&list, &file}) {
          if (stream->Write(*request)) stream->Read(&response);
        }
        stream->WritesDone();
        while (stream->Read(&response)) {
        }
        const grpc::Status status = stream->Finish();
        // A stream that cannot even be made.
        if (status.error_code() == StatusCode::UNIMPLEMENTED) return Ended{kClosed, ""};
        return EndedWith(status);
      },
      IsExhaustedOrClosed);
}

TEST_F(NoMemoryTest, StopsWhileMemoryIsShort) {
  grpc::ClientContext context;
  const auto stream = server_->attention().StreamAttention(&context);
  ASSERT_TRUE(stream->Write(PieceOf(1, ValidRequest())));
  v1::StreamAttentionResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  const test::LocalCaller caller(local_path());
  ASSERT_EQ(caller.Greet().code(), 0);
  test::FailAllocation(1, /*all=*/true);
  EXPECT_EQ(server().Stop().cut_off, 0);
  test::StopFailing();
  EXPECT_FALSE(stream->Read(&answer));
  const StatusCode code = stream->Finish().error_code();
  EXPECT_TRUE(code == StatusCode::UNAVAILABLE || code == StatusCode::RESOURCE_EXHAUSTED) << code;
}

}  // namespace
}  // namespace attnd::no_memory_test
