// The server as a whole: which options it rejects, on which addresses it answers, and how it stops. Its services have
// tests of their own; tests/e2e tests the signals and messages of the process.

#include "server/serving/server.h"

#include <sys/stat.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "attnd/v1/server.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpc_calls.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "kernel/registry.h"
#include "schedule/scheduler.h"
#include "started_server.h"
#include "temp_folder.h"
#include "wait.h"

namespace attnd::server {
namespace {

namespace fs = std::filesystem;
using grpc::StatusCode;
using testing::HasSubstr;
using testing::StartsWith;

class ServerTest : public testing::Test {
 protected:
  const test::TempFolder temp_;
  const fs::path folder_ = temp_.path();
};

TEST_F(ServerTest, AnswersOnceItHasStarted) {
  const std::unique_ptr<Server> server = Started();
  ASSERT_NE(server, nullptr);
  ASSERT_EQ(server->addresses().size(), 1U);
  EXPECT_THAT(server->addresses()[0], StartsWith("127.0.0.1:"));
  EXPECT_NE(server->addresses()[0], "127.0.0.1:0") << "the port that was bound";
  EXPECT_EQ(server->threads(), 1);
  EXPECT_EQ(server->kernel_name(), kernel::NameOf(**kernel::ChooseKernel("")));
  EXPECT_EQ(server->shared_memory(), nullptr);
  EXPECT_TRUE(server->registry().Find("book").ok());
  EXPECT_TRUE(server->registry().Find("t5-tiny").ok());

  EXPECT_EQ(server->TakePeakInflightBytes(), 0);
  const std::shared_ptr<grpc::Channel> channel = test::NewChannel(server->addresses()[0]);
  EXPECT_EQ(Compute(channel), StatusCode::OK);
  EXPECT_GT(server->TakePeakInflightBytes(), 0);
  EXPECT_EQ(server->calls_in_flight(), 0);
}

TEST_F(ServerTest, InfoIsWhatGetServerInfoAnswers) {
  v1::Setting setting;
  setting.set_name("of the process");
  Options options = TestOptions();
  options.threads = 3;
  options.limits.max_models = 77;
  const absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(options, {setting});
  ASSERT_TRUE(server.ok()) << server.status();
  v1::GetServerInfoResponse info;
  grpc::ClientContext context;
  context.set_deadline(Patience());
  ASSERT_TRUE(
      v1::ServerService::NewStub(test::NewChannel((*server)->addresses()[0]))->GetServerInfo(&context, {}, &info).ok());
  EXPECT_GT(info.memory().total_bytes(), 0);
  EXPECT_GT(info.model_bytes(), 0) << "the embedded models";
  // GetServerInfo adds fields about the current use to info(), whose facts do not change.
  info.clear_memory();
  info.clear_stalled_calls();
  info.clear_queue();
  info.clear_model_bytes();
  info.clear_sessions();
  EXPECT_EQ(info.DebugString(), (*server)->info().DebugString());
  EXPECT_EQ(info.threads(), 3);
  EXPECT_EQ(info.limits().max_models(), 77);
  EXPECT_EQ(info.kernel(), (*server)->kernel_name());
  ASSERT_GT(info.settings_size(), 0);
  EXPECT_EQ(info.settings(0).name(), "of the process");
}

TEST_F(ServerTest, ThreadsAreThoseOfTheMachineUnlessGiven) {
  Options options = TestOptions();
  options.threads = 0;
  const std::unique_ptr<Server> server = Started(options);
  ASSERT_NE(server, nullptr);
  EXPECT_EQ(server->threads(), schedule::DefaultThreads());
}

TEST_F(ServerTest, TheKernelIsTheOneAskedFor) {
  for (const kernel::Kernel* kernel : kernel::AvailableKernels()) {
    Options options = TestOptions();
    options.kernel = std::string(kernel::NameOf(*kernel));
    const std::unique_ptr<Server> server = Started(options);
    ASSERT_NE(server, nullptr);
    EXPECT_EQ(server->kernel_name(), options.kernel);
    EXPECT_EQ(Compute(test::NewChannel(server->addresses()[0])), StatusCode::OK) << options.kernel;
  }
}

TEST_F(ServerTest, AnswersOnEveryAddress) {
  Options options = TestOptions();
  const std::string socket = "unix:" + (folder_ / "socket").string();
  options.listen = {"127.0.0.1:0", socket, "127.0.0.1:0"};
  options.unix_socket_mode = 0600;
  const std::unique_ptr<Server> server = Started(options);
  ASSERT_NE(server, nullptr);
  ASSERT_EQ(server->addresses().size(), 3U);
  EXPECT_EQ(server->addresses()[1], socket);
  EXPECT_NE(server->addresses()[0], server->addresses()[2]);
  for (const std::string& address : server->addresses()) {
    EXPECT_EQ(Compute(test::NewChannel(address)), StatusCode::OK) << address;
  }
  struct stat file {};
  ASSERT_EQ(stat((folder_ / "socket").c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 07777, 0600U);
}

TEST_F(ServerTest, BesideAUnixSocketIsOneForSharedMemoryAndLocalCalls) {
  for (const bool shared_memory : {true, false}) {
    for (const bool local_calls : {true, false}) {
      Options options = TestOptions();
      options.listen.push_back("unix:" + (folder_ / "socket").string());
      options.shared_memory = shared_memory;
      options.local_calls = local_calls;
      options.unix_socket_mode = 0620;
      const std::unique_ptr<Server> server = Started(options);
      ASSERT_NE(server, nullptr);
      EXPECT_EQ(server->shared_memory() != nullptr, shared_memory);
      EXPECT_EQ(server->info().limits().max_shared_bytes() > 0, shared_memory);
      EXPECT_EQ(server->info().local_calls(), local_calls);
      int sockets = 0;
      for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
        if (!entry.is_socket()) continue;
        ++sockets;
        struct stat file {};
        ASSERT_EQ(stat(entry.path().c_str(), &file), 0);
        EXPECT_EQ(file.st_mode & 07777, 0620U) << entry.path();
      }
      EXPECT_EQ(sockets, shared_memory || local_calls ? 2 : 1) << "gRPC's and the one beside it";
    }
  }
}

TEST_F(ServerTest, APathNeedsRoomForTheSocketBeside) {
  const std::string folder = folder_.string() + "/";
  const auto start = [&](std::size_t length, bool beside) {
    Options options = TestOptions();
    options.listen = {"unix:" + folder + std::string(length - folder.size(), 'x')};
    options.shared_memory = options.local_calls = beside;
    return Server::Start(options).status();
  };
  EXPECT_TRUE(start(103, true).ok()) << start(103, true);
  const absl::Status refused = start(104, true);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--noshared_memory --nolocal_calls"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr(".shm"));
  EXPECT_TRUE(start(107, false).ok());
}

TEST_F(ServerTest, LoadsWhatTheModelRootHolds) {
  std::ofstream(folder_ / "mine.json") << R"({"tables": {"decoder": {"rule": "alibi", "slopes": [0.5]}}})";
  std::ofstream(folder_ / "broken.json") << "{";
  Options options = TestOptions();
  options.model_root = folder_;
  const std::unique_ptr<Server> server = Started(options);
  ASSERT_NE(server, nullptr) << "a broken model keeps no server from starting";
  EXPECT_TRUE(server->registry().Find("mine").ok());
  EXPECT_FALSE(server->registry().Find("broken").ok());
  EXPECT_TRUE(server->registry().Find("book").ok());
}

TEST_F(ServerTest, StrictModelsKeepItFromStarting) {
  Options options = TestOptions();
  options.model_root = folder_;
  options.strict_models = true;
  const absl::Status empty = Server::Start(options).status();
  EXPECT_EQ(empty.code(), absl::StatusCode::kFailedPrecondition) << empty;
  EXPECT_THAT(std::string(empty.message()), testing::HasSubstr("no model was loaded from " + std::string(folder_)));
  std::ofstream(folder_ / "mine.json") << R"({"tables": {"decoder": {"rule": "alibi", "slopes": [0.5]}}})";
  EXPECT_NE(Started(options), nullptr);
  std::ofstream(folder_ / "notes.txt") << "no model";
  EXPECT_NE(Started(options), nullptr) << "what is no model by its looks is none that failed";
  for (const char* name : {"broken.json", "closed.json"}) std::ofstream(folder_ / name) << "{";
  const absl::Status broken = Server::Start(options).status();
  EXPECT_EQ(broken.code(), absl::StatusCode::kFailedPrecondition) << broken;
  EXPECT_THAT(std::string(broken.message()), testing::AllOf(testing::HasSubstr("--strict_models: 2 of 3 models"),
                                                            testing::HasSubstr("\"broken.json\": not strict JSON"),
                                                            testing::HasSubstr("\"closed.json\": not strict JSON")));
}

TEST_F(ServerTest, RefusesToStart) {
  const std::unique_ptr<Server> other = Started();
  ASSERT_NE(other, nullptr);
  const std::string taken = other->addresses()[0];
  std::ofstream(folder_ / "file") << "no folder";
  const struct {
    std::function<void(Options&)> change;
    absl::StatusCode code;
    std::string message;
  } kCases[] = {
      {[](Options& o) { o.threads = -1; }, absl::StatusCode::kInvalidArgument, "--threads"},
      {[](Options& o) { o.listen.clear(); }, absl::StatusCode::kInvalidArgument, "--listen"},
      {[](Options& o) { o.log_level = "loud"; }, absl::StatusCode::kInvalidArgument, "--log_level"},
      {[](Options& o) { o.limits.max_dim = 0; }, absl::StatusCode::kInvalidArgument, "--max_dim"},
      {[](Options& o) { o.kernel = "abacus"; }, absl::StatusCode::kNotFound, "abacus"},
      {[](Options& o) { o.model_root = "/no/such/folder"; }, absl::StatusCode::kNotFound, "--model_root"},
      {[&](Options& o) { o.model_root = folder_ / "file"; }, absl::StatusCode::kNotFound, "--model_root"},
      {[&](Options& o) { o.listen = {taken}; }, absl::StatusCode::kUnavailable, taken},
      {[&](Options& o) { o.listen.push_back(taken); }, absl::StatusCode::kUnavailable, taken},
      {[](Options& o) { o.listen = {"unix:/no/such/folder/socket"}; }, absl::StatusCode::kUnavailable,
       "/no/such/folder"},
  };
  for (const auto& c : kCases) {
    Options options = TestOptions();
    c.change(options);
    const absl::Status status = Server::Start(options).status();
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
  EXPECT_EQ(Compute(test::NewChannel(taken)), StatusCode::OK) << "the other is not disturbed";
}

// Whatever keeps it from starting, nothing is left of the attempt.
TEST_F(ServerTest, AStartThatFailsLeavesNothing) {
  const std::unique_ptr<Server> other = Started();
  ASSERT_NE(other, nullptr);
  const std::string taken = other->addresses()[0];
  const std::string model_root = (folder_ / "models").string();
  const std::string sockets = (folder_ / "sockets").string();
  fs::create_directory(model_root);
  fs::create_directory(sockets);
  const auto start = [&](const std::function<void(Options&)>& change) {
    Options options = TestOptions();
    options.listen = {"unix:" + sockets + "/a"};
    change(options);
    return Server::Start(options).status();
  };
  const std::function<void(Options&)> changes[] = {
      [](Options& o) { o.threads = -1; },
      [](Options& o) { o.kernel = "abacus"; },
      [](Options& o) { o.model_root = "/no/such/folder"; },
      [&](Options& o) {
        o.model_root = model_root;
        o.strict_models = true;
      },
      [&](Options& o) { o.listen.push_back(taken); },
      [&](Options& o) { o.listen.push_back("unix:" + sockets + "/a"); },
      [&](Options& o) { o.listen = {"unix:" + sockets + "/" + std::string(103 - sockets.size(), 'x')}; },
  };
  EXPECT_TRUE(start([](Options&) {}).ok());  // what the first server of a process opens for good
  for (const auto& change : changes) EXPECT_FALSE(start(change).ok());
  const std::size_t before = test::OpenDescriptors();
  for (std::size_t i = 0; i < std::size(changes); ++i) {
    SCOPED_TRACE(i);
    EXPECT_FALSE(start(changes[i]).ok());
    EXPECT_TRUE(fs::is_empty(sockets));
    EXPECT_TRUE(test::Becomes([&] { return test::OpenDescriptors() <= before; })) << test::OpenDescriptors();
    EXPECT_TRUE(start([](Options&) {}).ok()) << "its address is free";
  }
}

TEST_F(ServerTest, HealthKnowsLivenessAndTheServices) {
  const std::unique_ptr<Server> server = Started();
  ASSERT_NE(server, nullptr);
  const std::shared_ptr<grpc::Channel> channel = test::NewChannel(server->addresses()[0]);
  EXPECT_EQ(Health(channel, kLivenessName), "SERVING");
  for (const char* name : kServingNames) EXPECT_EQ(Health(channel, name), "SERVING") << name;
  EXPECT_EQ(Health(channel, "no.such.Service"), absl::StrCat("error ", static_cast<int>(StatusCode::NOT_FOUND)));
}

TEST_F(ServerTest, WhileItDrainsItIsAliveAndTakesNoCalls) {
  const std::unique_ptr<Server> server = Started();
  ASSERT_NE(server, nullptr);
  UnreadStream accepted(*server);  // so that the drain lasts until this test has looked
  const std::shared_ptr<grpc::Channel> channel = test::NewChannel(server->addresses()[0]);
  ASSERT_EQ(Compute(channel), StatusCode::OK);
  std::int64_t cut_off = -1;
  std::thread stop([&] { cut_off = server->Stop().cut_off; });
  const absl::Time deadline = absl::Now() + kPatience / 2;
  for (const char* name : kServingNames) {
    std::string health = Health(channel, name);
    while (health == "SERVING" && absl::Now() < deadline) health = Health(channel, name);
    EXPECT_THAT(health, testing::AnyOf("NOT_SERVING", testing::StartsWith("error"))) << name;  // error: closed
  }
  EXPECT_THAT(Health(channel, kLivenessName), testing::AnyOf("SERVING", testing::StartsWith("error")));
  // gRPC's shutdown begins a moment after the health service answers NOT_SERVING.
  StatusCode refused = Compute(channel);
  while (refused == StatusCode::OK && absl::Now() < deadline) refused = Compute(channel);
  EXPECT_THAT(refused, testing::AnyOf(StatusCode::UNAVAILABLE, StatusCode::CANCELLED));
  EXPECT_GT(server->calls_in_flight(), 0);
  EXPECT_TRUE(accepted.Read()) << "what was accepted is answered";
  // gRPC closes the connection when its last call ends. If the client writes at that moment, for example for flow
  // control, its write fails before it reads the status, and it reports UNAVAILABLE.
  const grpc::Status finished = accepted.Finish();
  EXPECT_THAT(finished.error_code(), testing::AnyOf(StatusCode::OK, StatusCode::UNAVAILABLE))
      << finished.error_message();
  stop.join();
  EXPECT_EQ(cut_off, 0);
  EXPECT_EQ(server->calls_in_flight(), 0);
  EXPECT_NE(Compute(channel), StatusCode::OK);
}

TEST_F(ServerTest, CallsAreCutOffOnceTheDrainTimeIsOver) {
  Options options = TestOptions();
  options.drain = absl::ZeroDuration();
  const std::unique_ptr<Server> server = Started(options);
  ASSERT_NE(server, nullptr);
  UnreadStream accepted(*server);
  const std::int64_t in_flight = server->calls_in_flight();
  EXPECT_EQ(server->Stop().cut_off, in_flight);
  EXPECT_FALSE(accepted.Read());
  EXPECT_FALSE(accepted.Finish().ok());
  EXPECT_EQ(server->calls_in_flight(), 0);
}

TEST_F(ServerTest, StoppingAnIdleServerCutsNothingOff) {
  const std::unique_ptr<Server> server = Started();
  ASSERT_NE(server, nullptr);
  EXPECT_EQ(server->Stop().cut_off, 0);
}

TEST_F(ServerTest, DestructionCancelsWhatIsInFlight) {
  std::unique_ptr<Server> server = Started();
  ASSERT_NE(server, nullptr);
  UnreadStream accepted(*server);
  server.reset();
  EXPECT_FALSE(accepted.Read());
  EXPECT_FALSE(accepted.Finish().ok());
}

TEST_F(ServerTest, AnotherMayListenWhereOneHasStopped) {
  Options options = TestOptions();
  absl::StatusOr<std::unique_ptr<Server>> started = absl::UnknownError("not tried");
  // Tries again if another process gets the port in between.
  for (int i = 0; i < 10 && !started.ok(); ++i) {
    std::unique_ptr<Server> first = Started();
    ASSERT_NE(first, nullptr);
    options.listen = first->addresses();
    first->Stop();
    first.reset();
    started = Server::Start(options);
  }
  ASSERT_TRUE(started.ok()) << started.status();
  const std::unique_ptr<Server> second = *std::move(started);
  EXPECT_EQ(second->addresses(), options.listen);
  EXPECT_EQ(Compute(test::NewChannel(second->addresses()[0])), StatusCode::OK);
}

}  // namespace
}  // namespace attnd::server
