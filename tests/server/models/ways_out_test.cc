// Every way in which a call of ModelService can end, for each of its methods: afterwards no memory is held, nothing is
// queued, and the service answers as before.

#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "contract/asking.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "grpc/grpc.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "pending_call.h"
#include "server/models/service.h"
#include "server/rpc/admission.h"
#include "spdlog/spdlog.h"
#include "stuck_log.h"
#include "temp_folder.h"
#include "unread_call.h"
#include "wait.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;
using test::Becomes;
using testing::HasSubstr;

// gRPC stays up until the process ends: where its last user goes just after a large write, it waits ten seconds for a
// poller of its own.
[[maybe_unused]] const bool kGrpcIsUp = (grpc_init(), true);

constexpr std::int64_t kMiB = std::int64_t{1} << 20;
constexpr std::int64_t kCallBytes = 16 << 10;  // what a queued call reserves besides its message

// A method, and what the service does with it.
struct Rpc {
  const char* name;
  std::string request;  // that is answered
  std::string refused;  // that is not, with `code`
  StatusCode code;
  bool queued = true;  // it waits for a thread of the service
  bool logs = false;   // it writes a line when its work is done
};

template <typename Message>
std::string Bytes(const std::function<void(Message&)>& fill) {
  Message message;
  fill(message);
  return message.SerializeAsString();
}

v1::UploadTableRequest Upload(const std::string& model) {
  v1::UploadTableRequest request;
  request.set_model(model);
  request.mutable_table()->set_heads(1);
  request.mutable_table()->mutable_alibi()->add_slopes(0.5F);
  return request;
}

std::string Window(const std::string& model, std::int64_t queries, std::int64_t keys) {
  return Bytes<v1::GetBiasRequest>([&](v1::GetBiasRequest& r) {
    r.set_model(model);
    r.set_query_count(queries);
    r.set_key_count(keys);
  });
}

std::vector<Rpc> Rpcs() {
  return {
      {"ListModels", "", Bytes<v1::ListModelsRequest>([](auto& r) { r.set_page_size(-1); }),
       StatusCode::INVALID_ARGUMENT, /*queued=*/false},
      {"GetModel", Bytes<v1::GetModelRequest>([](auto& r) { r.set_name("book"); }),
       Bytes<v1::GetModelRequest>([](auto& r) { r.set_name("no-such"); }), StatusCode::NOT_FOUND, /*queued=*/false},
      {"GetModel", Bytes<v1::GetModelRequest>([](auto& r) {
         r.set_name("book");
         r.set_include_values(true);
       }),
       Bytes<v1::GetModelRequest>([](auto& r) {
         r.set_name("no-such");
         r.set_include_values(true);
       }),
       StatusCode::NOT_FOUND},
      {"LoadModel", Bytes<v1::LoadModelRequest>([](auto& r) { r.set_path("new.json"); }),
       Bytes<v1::LoadModelRequest>([](auto& r) { r.set_path("no-such.json"); }), StatusCode::NOT_FOUND, true, true},
      {"UnloadModel", Bytes<v1::UnloadModelRequest>([](auto& r) { r.set_name("book"); }),
       Bytes<v1::UnloadModelRequest>([](auto& r) { r.set_name("no-such"); }), StatusCode::NOT_FOUND, true, true},
      {"ReloadModel", Bytes<v1::ReloadModelRequest>([](auto& r) { r.set_name("old"); }),
       Bytes<v1::ReloadModelRequest>([](auto& r) { r.set_name("book"); }), StatusCode::FAILED_PRECONDITION, true, true},
      {"UploadTable", Upload("up").SerializeAsString(), Upload("a name").SerializeAsString(),
       StatusCode::INVALID_ARGUMENT, true, true},
      {"GetBias", Window("book", 3, 3), Window("book", 0, 3), StatusCode::INVALID_ARGUMENT},
  };
}

// A server that has the models "book" (embedded) and "old" (from a file), and a file of another one.
class Served {
 public:
  explicit Served(std::int64_t memory = std::int64_t{1} << 30, const StallLimit& stall = {})
      : ledger({.total = memory, .shares = false}),
        stalls(stall, counters, [](const std::string&) {}),
        logger_before_(spdlog::default_logger()) {
    for (const char* name : {"old", "new"}) {
      std::ofstream(absl::StrCat(folder_.path(), "/", name, ".json"))
          << R"({"tables": {"decoder": {"rule": "alibi", "slopes": [0.5]}}})";
    }
    EXPECT_TRUE(registry.AddEmbedded().ok());
    EXPECT_TRUE(registry.Load("", "old.json").ok());
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("test", log));
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    server_ = builder.BuildAndStart();
    address = absl::StrCat("127.0.0.1:", port);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  }
  ~Served() {
    log->Go();
    holders_.clear();
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    spdlog::set_default_logger(logger_before_);
  }

  static std::string Method(const std::string& name) { return "/attnd.v1.ModelService/" + name; }
  std::unique_ptr<test::PendingCall> Call(const std::string& name, const std::string& request,
                                          absl::Duration time = absl::Seconds(20)) {
    return std::make_unique<test::PendingCall>(channel_, Method(name), request, time);
  }

  // Holds every thread of the service, each in a call of its own that is refused. Returns the bytes that these hold.
  std::int64_t HoldThreads() {
    const auto hold = [this](const char* method, const std::string& request, int threads) {
      for (int i = 0; i < threads; ++i) holders_.push_back(Call(method, request));
    };
    hold("UnloadModel", Bytes<v1::UnloadModelRequest>([](auto& r) { r.set_name("no-such"); }),
         ModelService::kTableThreads);
    hold("LoadModel", Bytes<v1::LoadModelRequest>([](auto& r) { r.set_path("no-such"); }), ModelService::kFileThreads);
    EXPECT_TRUE(log->AwaitWriters(ModelService::kTableThreads + ModelService::kFileThreads)) << "threads are not held";
    return ledger.used_bytes();
  }
  void Release() {
    log->Go();
    for (const auto& holder : holders_) EXPECT_FALSE(holder->Await().ok());
    holders_.clear();
  }

  void ExpectNothingHeld() {
    EXPECT_TRUE(Becomes([&] { return ledger.used_bytes() == 0; })) << ledger.used_bytes();
    EXPECT_TRUE(Becomes([&] { return !service.busy(); }));
    EXPECT_EQ(ledger.GetUsage().peers, 0);
  }

  const std::shared_ptr<StuckLog> log = std::make_shared<StuckLog>();

 private:
  const test::TempFolder folder_;

 public:
  model::Registry registry{[this] {
    model::RegistryOptions options;
    options.model_root = folder_.path();
    return options;
  }()};
  memory::Ledger ledger;
  Counters counters;
  StallWatch stalls;
  ModelService service{Limits(), registry, ledger, stalls};
  std::string address;

 private:
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::vector<std::unique_ptr<test::PendingCall>> holders_;
  std::shared_ptr<spdlog::logger> logger_before_;
};

// For each method, or for those in the queue alone, with a server of its own.
void ForEach(bool queued_alone, const std::function<void(const Rpc&)>& test) {
  for (const Rpc& rpc : Rpcs()) {
    if (queued_alone && !rpc.queued) continue;
    SCOPED_TRACE(absl::StrCat(rpc.name, rpc.queued ? ", queued" : ""));
    test(rpc);
  }
}

TEST(ModelWaysOutTest, EveryMethodIsInTheTable) {
  std::set<std::string> methods, rows;
  const google::protobuf::ServiceDescriptor& service =
      *v1::ListModelsRequest::descriptor()->file()->FindServiceByName("ModelService");
  for (int i = 0; i < service.method_count(); ++i) methods.insert(service.method(i)->name());
  for (const Rpc& rpc : Rpcs()) rows.insert(rpc.name);
  EXPECT_EQ(rows, methods);
}

TEST(ModelWaysOutTest, AnsweredRefusedOrMalformed) {
  ForEach(false, [](const Rpc& rpc) {
    Served served;
    served.log->Go();
    const auto answered = served.Call(rpc.name, rpc.request);
    EXPECT_TRUE(answered->Await().ok()) << answered->Await().error_message();
    served.ExpectNothingHeld();
    EXPECT_EQ(served.Call(rpc.name, rpc.refused)->Code(), rpc.code);
    served.ExpectNothingHeld();
    const auto malformed = served.Call(rpc.name, "\x0a\x7f");  // a string of 127 bytes that are not there
    EXPECT_EQ(malformed->Code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(malformed->Await().error_message(), HasSubstr("request: expected an attnd.v1."));
    served.ExpectNothingHeld();
  });
}

TEST(ModelWaysOutTest, InTheQueue) {
  const struct {
    const char* name;
    absl::Duration time;
    bool cancel;
    StatusCode code;
  } kWays[] = {{"cancelled", absl::Seconds(20), true, StatusCode::CANCELLED},
               {"late", absl::Milliseconds(150), false, StatusCode::DEADLINE_EXCEEDED}};
  for (const auto& way : kWays) {
    SCOPED_TRACE(way.name);
    ForEach(false, [&](const Rpc& rpc) {
      Served served;
      const std::int64_t before = served.HoldThreads();
      // A field that the message does not know makes it longer.
      constexpr std::int64_t kLong = 100'000;
      const std::string request = rpc.request + "\xc2\x3e\xa0\x8d\x06" + std::string(kLong, 'x');
      const auto call = served.Call(rpc.name, request, way.time);
      if (!rpc.queued) {
        EXPECT_TRUE(call->Await().ok()) << "it does not wait for threads that others hold";
        return;
      }
      EXPECT_TRUE(Becomes([&] { return served.ledger.used_bytes() > before || call->done(); }));
      const std::int64_t waiting = served.ledger.used_bytes() - before;
      if (way.cancel) {
        EXPECT_GE(waiting, 3 * static_cast<std::int64_t>(request.size())) << "message, copy and parsed message";
        EXPECT_LE(waiting, 3 * static_cast<std::int64_t>(request.size()) + 2 * kCallBytes);
        call->Cancel();
      }
      EXPECT_EQ(call->Code(), way.code);
      EXPECT_TRUE(Becomes([&] { return served.ledger.used_bytes() == before; })) << "it still waits";
      served.Release();
      served.ExpectNothingHeld();
      EXPECT_TRUE(served.Call(rpc.name, rpc.request)->Await().ok()) << "it has changed nothing";
    });
  }
}

TEST(ModelWaysOutTest, TheConnectionIsLostInTheQueue) {
  ForEach(true, [](const Rpc& rpc) {
    Served served;
    const std::int64_t before = served.HoldThreads();
    {
      const test::UnreadCall lost(served.address, Served::Method(rpc.name), rpc.request);
      ASSERT_TRUE(lost.sent());
      EXPECT_TRUE(Becomes([&] { return served.ledger.used_bytes() > before; })) << "it does not arrive";
    }
    EXPECT_TRUE(Becomes([&] { return served.ledger.used_bytes() == before; })) << "it still waits";
    served.Release();
    served.ExpectNothingHeld();
    EXPECT_TRUE(served.Call(rpc.name, rpc.request)->Await().ok()) << "it has changed nothing";
  });
}

TEST(ModelWaysOutTest, TheServerStopsWhileCallsWait) {
  ForEach(true, [](const Rpc& rpc) {
    std::unique_ptr<test::PendingCall> waits;
    Served served;
    const std::int64_t before = served.HoldThreads();
    waits = served.Call(rpc.name, rpc.request);
    EXPECT_TRUE(Becomes([&] { return served.ledger.used_bytes() > before; }));
    EXPECT_TRUE(served.service.busy()) << "a stop waits for it";
    served.Release();
    EXPECT_TRUE(waits->Await().ok());
    served.ExpectNothingHeld();
  });
}

// Its work cannot be undone; its memory is held until it ends.
TEST(ModelWaysOutTest, CancelledWhileItRuns) {
  int tried = 0;
  ForEach(true, [&](const Rpc& rpc) {
    if (!rpc.logs) return;
    ++tried;
    Served served;
    const auto call = served.Call(rpc.name, rpc.request);
    ASSERT_TRUE(served.log->AwaitWriters(1));
    EXPECT_TRUE(served.service.busy()) << "a stop waits for it";
    call->Cancel();
    EXPECT_EQ(call->Code(), StatusCode::CANCELLED);
    EXPECT_GT(served.ledger.used_bytes(), 0);
    EXPECT_TRUE(served.service.busy());
    served.log->Go();
    served.ExpectNothingHeld();
  });
  EXPECT_EQ(tried, 4);
}

TEST(ModelWaysOutTest, NoRoomWhenItArrives) {
  ForEach(true, [](const Rpc& rpc) {
    Served served(kMiB);
    served.log->Go();
    {
      const auto others = Admit(served.ledger, served.ledger.AccountOf("another"), kMiB - kCallBytes);
      ASSERT_TRUE(others.ok());
      const auto refused = served.Call(rpc.name, rpc.request);
      EXPECT_EQ(refused->Code(), StatusCode::RESOURCE_EXHAUSTED);
      EXPECT_THAT(refused->Await().error_message(), HasSubstr("request: expected at most 1048576 bytes in flight"));
      EXPECT_NE(refused->Trailer("grpc-retry-pushback-ms"), "");
      EXPECT_EQ(refused->Trailer(contract::kAskTrailer), "1");
      EXPECT_TRUE(Becomes([&] { return served.ledger.used_bytes() == kMiB - kCallBytes; }));
    }
    served.ExpectNothingHeld();
    EXPECT_TRUE(served.Call(rpc.name, rpc.request)->Await().ok());
    served.ExpectNothingHeld();
  });
}

// There is room for the message as it arrived, and none for what it becomes.
TEST(ModelWaysOutTest, NoRoomWhenItIsParsed) {
  ForEach(true, [](const Rpc& rpc) {
    const std::int64_t arrived = kCallBytes + 3 * static_cast<std::int64_t>(rpc.request.size());
    Served never(arrived);
    never.log->Go();
    const auto refused_for_good = never.Call(rpc.name, rpc.request);
    EXPECT_EQ(refused_for_good->Code(), StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_THAT(refused_for_good->Await().error_message(), HasSubstr("can never fit"));
    EXPECT_EQ(refused_for_good->Trailer("grpc-retry-pushback-ms"), "");
    never.ExpectNothingHeld();

    Served served(kMiB);
    served.log->Go();
    {
      const auto others = Admit(served.ledger, served.ledger.AccountOf("another"), kMiB - arrived);
      ASSERT_TRUE(others.ok());
      const auto refused = served.Call(rpc.name, rpc.request);
      EXPECT_EQ(refused->Code(), StatusCode::RESOURCE_EXHAUSTED);
      EXPECT_NE(refused->Trailer("grpc-retry-pushback-ms"), "");
      EXPECT_EQ(refused->Trailer(contract::kAskTrailer), "1");
      EXPECT_TRUE(Becomes([&] { return served.ledger.used_bytes() == kMiB - arrived; }));
    }
    served.ExpectNothingHeld();
    EXPECT_TRUE(served.Call(rpc.name, rpc.request)->Await().ok()) << "it has changed nothing";
  });
}

// Methods with answers of any size.
class UnreadAnswerTest : public testing::Test {
 protected:
  // A call whose answer has megabytes.
  static std::vector<std::pair<const char*, std::string>> Large(Served& served) {
    v1::Table table;
    table.set_heads(1);
    table.set_bidirectional(true);
    table.mutable_per_offset()->set_min_offset(-1);
    for (int i = 0; i < (1 << 20); ++i) table.mutable_per_offset()->add_values(static_cast<float>(i));
    v1::UploadTableRequest upload;
    upload.set_model("large");
    *upload.mutable_table() = std::move(table);
    v1::UploadTableResponse response;
    const ModelMethods methods{Limits(), served.registry};
    EXPECT_TRUE(methods.UploadTable(&upload, &response).ok());
    return {{"GetBias", Window("book", 600, 600)}, {"GetModel", Bytes<v1::GetModelRequest>([](auto& r) {
                                                      r.set_name("large");
                                                      r.set_include_values(true);
                                                    })}};
  }
};

// While it is sent, a call holds its message and its answer, and no longer what it took to make that.
TEST_F(UnreadAnswerTest, IsHeldAloneUntilTheConnectionIsLost) {
  Served served;
  served.log->Go();
  for (const auto& [method, request] : Large(served)) {
    SCOPED_TRACE(method);
    const auto read = served.Call(method, request);
    ASSERT_TRUE(read->Await().ok());
    const auto answer = static_cast<std::int64_t>(read->answer().Length());
    ASSERT_GT(answer, kMiB);
    served.ExpectNothingHeld();
    {
      const test::UnreadCall unread(served.address, Served::Method(method), request);
      ASSERT_TRUE(unread.sent());
      const std::int64_t sending = answer + static_cast<std::int64_t>(request.size()) + kCallBytes;
      EXPECT_TRUE(Becomes([&] { return served.ledger.used_bytes() == sending && !served.service.busy(); }))
          << served.ledger.used_bytes() << " and not " << sending;
    }
    served.ExpectNothingHeld();
  }
}

TEST_F(UnreadAnswerTest, EndsItsCall) {
  Served served(std::int64_t{1} << 30, {.patience = absl::Milliseconds(50), .bytes_per_second = std::int64_t{1} << 40});
  served.log->Go();
  std::int64_t ended = 0;
  for (const auto& [method, request] : Large(served)) {
    SCOPED_TRACE(method);
    const test::UnreadCall unread(served.address, Served::Method(method), request);
    ASSERT_TRUE(unread.sent());
    EXPECT_TRUE(Becomes([&] { return served.counters.stalled_writes.load() > ended; })) << "it is not ended";
    served.ExpectNothingHeld();
    EXPECT_EQ(served.counters.stalled_writes.load(), ++ended);
  }
}

}  // namespace
}  // namespace attnd::server
