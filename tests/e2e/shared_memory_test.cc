// Shared memory end to end: the client library against a real server at a Unix socket, and requests that lie about
// regions.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "attnd/client.h"
#include "attnd/shm/mapping.h"
#include "client/src/shared_memory.h"
#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "local_caller.h"
#include "memory/huge_pages.h"
#include "signals.h"
#include "temp_folder.h"

namespace attnd::e2e {
namespace {

class SharedMemoryTest : public testing::Test {
 protected:
  SharedMemoryTest() { Start(); }

  void Start(bool shared_memory = true) {
    server::Options options = TestOptions();
    options.listen = {"unix:" + path()};
    options.shared_memory = options.local_calls = shared_memory;
    options.unix_socket_mode = 0600;
    server_.reset();
    server_ = std::make_unique<TestServer>(options);
  }
  std::string path() const { return folder_.path() + "/attnd.sock"; }
  std::string target() const { return "unix:" + path(); }

  const test::TempFolder folder_;
  std::unique_ptr<TestServer> server_;
};

// A request whose tensors are views of the bytes of `message`.
ComputeRequest ViewOf(const v1::ComputeAttentionRequest& m) {
  ComputeRequest request;
  request.model = m.model();
  request.q = {m.q().data(), DType::kFp32, {m.batch(), m.heads(), m.query_length(), m.head_dim()}};
  request.k = {m.k().data(), DType::kFp32, {m.batch(), m.heads(), m.key_length(), m.head_dim()}};
  request.v = {m.v().data(), DType::kFp32, {m.batch(), m.heads(), m.key_length(), m.head_dim()}};
  request.return_log_sum_exp = true;
  return request;
}

std::string OutputOf(const ComputeReply& reply) {
  std::string bytes(reply.output.size_bytes(), '\0');
  reply.output.CopyTo(bytes.data());
  return bytes;
}

// Bytes of shared memory that this process maps by huge pages.
std::size_t HugeSharedBytes() {
  std::ifstream maps("/proc/self/smaps");
  const std::string key = "ShmemPmdMapped:";
  std::size_t kib = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.starts_with(key)) kib += std::stoul(line.substr(key.size()));
  }
  return kib * 1024;
}

constexpr Shape kShape{.batch = 2, .query_length = 200, .key_length = 230, .head_dim = 16};

TEST_F(SharedMemoryTest, OrdinaryMemoryGoesThroughIt) {
  const v1::ComputeAttentionRequest message = ValidRequest(kShape);
  v1::ComputeAttentionResponse expected;
  ASSERT_TRUE(server_->Compute(message, &expected).ok());
  Client client = *Client::Create(target());
  const std::int64_t before = server_->server().shared_memory()->mapped_bytes();
  EXPECT_EQ(before, 0);
  for (int i = 0; i < 3; ++i) {
    const auto reply = client.Compute(ViewOf(message));
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(OutputOf(*reply), expected.output());
    EXPECT_GT(server_->server().shared_memory()->mapped_bytes(), 0) << "it was sent instead";
  }
  const auto reply = client.ComputeFuture(ViewOf(message)).get();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(OutputOf(*reply), expected.output());
}

TEST_F(SharedMemoryTest, BuffersAreReadAndWrittenInPlace) {
  const v1::ComputeAttentionRequest message = ValidRequest(kShape);
  v1::ComputeAttentionResponse expected;
  ASSERT_TRUE(server_->Compute(message, &expected).ok());
  Client client = *Client::Create(target());
  const SharedBuffer buffer = *client.AllocateBuffer(message.q().size() * 2 + message.k().size() * 2 + 1000);
  ComputeRequest request = ViewOf(message);
  auto* at = static_cast<unsigned char*>(buffer.data()) + 3;  // of any alignment
  for (const auto& [tensor, bytes] : {std::pair{&request.q, &message.q()}, std::pair{&request.k, &message.k()},
                                      std::pair{&request.v, &message.v()}}) {
    std::memcpy(at, bytes->data(), bytes->size());
    tensor->data = at;
    at += bytes->size();
  }
  request.output = {at, expected.output().size()};
  std::memset(at, 0xee, expected.output().size() + 1);
  const auto reply = client.Compute(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(std::string(reinterpret_cast<char*>(at), expected.output().size()), expected.output());
  EXPECT_EQ(at[expected.output().size()], 0xee);
  EXPECT_EQ(server_->server().shared_memory()->mapped_bytes(), static_cast<std::int64_t>(buffer.size()));
}

// On huge pages for both sides: the server is in this process, and maps the region a second time.
TEST_F(SharedMemoryTest, LargeBuffersLieOnHugePages) {
  constexpr std::size_t kBytes = 8 << 20;
  const int probe = memfd_create("probe", 0);
  ASSERT_EQ(ftruncate(probe, kBytes), 0);
  void* const probed = shm::Map(probe, kBytes, MAP_POPULATE);
  close(probe);
  ASSERT_NE(probed, MAP_FAILED);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(probed) % shm::kHugePageBytes, 0U);
  const bool has_huge_pages = shm::UseHugePages(probed, kBytes);
  munmap(probed, kBytes);

  Client client = *Client::Create(target());
  const SharedBuffer buffer = *client.AllocateBuffer(kBytes);
  if (!has_huge_pages) GTEST_SKIP() << "this system has no huge pages for shared memory";
  EXPECT_EQ(memory::HugeFraction(buffer.data(), buffer.size()), 1.0);
  const std::size_t at_client = HugeSharedBytes();
  const v1::ComputeAttentionRequest message = ValidRequest(kShape);
  ComputeRequest request = ViewOf(message);
  std::memcpy(buffer.data(), request.q.data, message.q().size());
  request.q.data = buffer.data();
  ASSERT_TRUE(client.Compute(request).ok());
  EXPECT_GE(HugeSharedBytes(), at_client + shm::kHugePageBytes) << "the server reads it through small pages";
}

TEST_F(SharedMemoryTest, SignalsCostNoCallAndNoRegion) {
  const v1::ComputeAttentionRequest message = ValidRequest(kShape);
  Client client = *Client::Create(target());
  const SharedBuffer buffer = *client.AllocateBuffer(message.q().size());
  ComputeRequest request = ViewOf(message);
  std::memcpy(buffer.data(), request.q.data, buffer.size());
  request.q.data = buffer.data();
  const test::Signals signals;
  for (int i = 0; i < 200; ++i) {
    // A new region for each call, beside the one that stays.
    const SharedBuffer output = *client.AllocateBuffer(1 << 20);
    const auto reply = i % 2 == 0 ? client.Compute(request) : client.ComputeFuture(request).get();
    ASSERT_TRUE(reply.ok()) << reply.status();
    request.output = {output.data(), reply->output.size_bytes()};
    ASSERT_TRUE(client.Compute(request).ok());
    request.output = {};
    EXPECT_GE(server_->server().shared_memory()->mapped_bytes(),
              static_cast<std::int64_t>(buffer.size() + output.size()))
        << "regions were lost in call " << i;
  }
}

TEST_F(SharedMemoryTest, ANewServerIsJoinedWithoutAWord) {
  const v1::ComputeAttentionRequest message = ValidRequest(kShape);
  Client client = *Client::Create(target());
  const auto before = client.Compute(ViewOf(message));
  ASSERT_TRUE(before.ok()) << before.status();
  for (const bool shared_memory : {true, false, true}) {
    Start(shared_memory);
    CallOptions options;
    options.wait_for_ready = true;
    options.deadline = absl::Now() + absl::Seconds(20);
    const auto after = client.Compute(ViewOf(message), options);
    ASSERT_TRUE(after.ok()) << after.status();
    EXPECT_EQ(OutputOf(*after), OutputOf(*before));
  }
}

TEST_F(SharedMemoryTest, SocketsHaveTheirPermissionsAndGoWithTheServer) {
  for (const std::string& socket : {path(), path() + ".shm"}) {
    struct stat file;
    ASSERT_EQ(stat(socket.c_str(), &file), 0) << socket;
    EXPECT_EQ(file.st_mode & 0777, 0600U) << socket;
  }
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(path()));
  EXPECT_FALSE(std::filesystem::exists(path() + ".shm"));
}

TEST_F(SharedMemoryTest, WithoutTheFlagThereIsNone) {
  Start(false);
  EXPECT_FALSE(std::filesystem::exists(path() + ".shm"));
  v1::ComputeAttentionRequest request = ValidRequest();
  request.clear_q();
  request.mutable_q_shared()->set_region(std::string(16, 'x'));
  v1::ComputeAttentionResponse response;
  EXPECT_EQ(server_->Compute(request, &response).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

// Requests by hand, with one region of kRegion bytes.
class LyingTest : public SharedMemoryTest {
 protected:
  static constexpr std::size_t kRegion = 1 << 16;

  LyingTest() : client_(std::make_shared<client::SharedMemory>(path() + ".shm")) {
    memory_ = *client_->Allocate(kRegion);
    const client::SharedPlace place = *Registered(*client_, memory_);
    handle_.assign(place.region.begin(), place.region.end());
  }

  // The region's name, once the server has it.
  static std::optional<client::SharedPlace> Registered(client::SharedMemory& client,
                                                       const std::shared_ptr<void>& memory) {
    client.SettleNow({{memory.get(), kRegion}}, absl::InfiniteFuture());
    return client.Find({memory.get(), kRegion});
  }

  v1::SharedTensor At(std::uint64_t offset) const {
    v1::SharedTensor tensor;
    tensor.set_region(handle_);
    tensor.set_offset(offset);
    return tensor;
  }

  // All five tensors in the region, apart.
  v1::ComputeAttentionRequest Shared() const {
    const v1::ComputeAttentionRequest whole = ValidRequest(kSmall);
    v1::ComputeAttentionRequest request = whole;
    auto* const at = static_cast<char*>(memory_.get());
    std::uint64_t offset = 0;
    const auto place = [&](const std::string& bytes, v1::SharedTensor& tensor) {
      std::memcpy(at + offset, bytes.data(), bytes.size());
      tensor = At(offset);
      offset += bytes.size();
    };
    place(whole.q(), *request.mutable_q_shared());
    place(whole.k(), *request.mutable_k_shared());
    place(whole.v(), *request.mutable_v_shared());
    *request.mutable_output_shared() = At(offset);
    *request.mutable_log_sum_exp_shared() = At(offset + whole.q().size());
    request.set_return_log_sum_exp(true);
    request.clear_q();
    request.clear_k();
    request.clear_v();
    return request;
  }

  static constexpr Shape kSmall{.batch = 2, .query_length = 20, .key_length = 23, .head_dim = 8};
  std::shared_ptr<client::SharedMemory> client_;
  std::shared_ptr<void> memory_;
  std::string handle_;
};

TEST_F(LyingTest, TheTruthWorks) {
  const v1::ComputeAttentionRequest request = Shared();
  v1::ComputeAttentionResponse response;
  const grpc::Status status = server_->Compute(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(response.output().empty());
  EXPECT_TRUE(response.log_sum_exp().empty());
  v1::ComputeAttentionRequest sent = ValidRequest(kSmall);
  sent.set_return_log_sum_exp(true);
  v1::ComputeAttentionResponse expected;
  ASSERT_TRUE(server_->Compute(sent, &expected).ok());
  EXPECT_EQ(std::string(static_cast<char*>(memory_.get()) + request.output_shared().offset(), expected.output().size()),
            expected.output());
  ASSERT_FALSE(expected.log_sum_exp().empty());
  EXPECT_EQ(std::string(static_cast<char*>(memory_.get()) + request.log_sum_exp_shared().offset(),
                        expected.log_sum_exp().size()),
            expected.log_sum_exp());
}

TEST_F(LyingTest, LiesAreRefused) {
  using Request = v1::ComputeAttentionRequest;
  const std::vector<std::tuple<const char*, std::function<void(Request&)>, const char*, grpc::StatusCode>> lies = {
      {"offset beyond", [&](Request& r) { r.mutable_k_shared()->set_offset(kRegion); }, "k_shared.offset",
       grpc::StatusCode::INVALID_ARGUMENT},
      {"end beyond", [&](Request& r) { r.mutable_v_shared()->set_offset(kRegion - 8); }, "v_shared.offset",
       grpc::StatusCode::INVALID_ARGUMENT},
      {"offset that wraps", [&](Request& r) { r.mutable_q_shared()->set_offset(~std::uint64_t{0} - 4); },
       "q_shared.offset", grpc::StatusCode::INVALID_ARGUMENT},
      {"output beyond", [&](Request& r) { r.mutable_output_shared()->set_offset(kRegion - 1); }, "output_shared.offset",
       grpc::StatusCode::INVALID_ARGUMENT},
      {"output over q", [&](Request& r) { r.mutable_output_shared()->set_offset(0); }, "output_shared.offset",
       grpc::StatusCode::INVALID_ARGUMENT},
      {"output over the end of v",
       [&](Request& r) { r.mutable_output_shared()->set_offset(r.output_shared().offset() - 1); },
       "output_shared.offset", grpc::StatusCode::INVALID_ARGUMENT},
      {"dims larger than the region", [](Request& r) { r.set_key_length(1 << 20); }, "k_shared.offset",
       grpc::StatusCode::INVALID_ARGUMENT},
      {"dims that overflow",
       [](Request& r) {
         r.set_key_length((std::int64_t{1} << 31) - 1);
         r.set_batch((std::int64_t{1} << 31) - 1);
       },
       "q_shared.offset", grpc::StatusCode::INVALID_ARGUMENT},
      {"no handle", [](Request& r) { r.mutable_q_shared()->clear_region(); }, "q_shared.region",
       grpc::StatusCode::INVALID_ARGUMENT},
      {"half a handle", [](Request& r) { r.mutable_q_shared()->mutable_region()->resize(8); }, "q_shared.region",
       grpc::StatusCode::INVALID_ARGUMENT},
      {"another's handle", [](Request& r) { (*r.mutable_q_shared()->mutable_region())[5] ^= 1; }, "q_shared.region",
       grpc::StatusCode::FAILED_PRECONDITION},
      {"sent and shared", [](Request& r) { r.set_q("12345678"); }, "q", grpc::StatusCode::INVALID_ARGUMENT},
      {"log-sum-exp beyond", [&](Request& r) { r.mutable_log_sum_exp_shared()->set_offset(kRegion - 4); },
       "log_sum_exp_shared.offset", grpc::StatusCode::INVALID_ARGUMENT},
      {"log-sum-exp over q", [&](Request& r) { r.mutable_log_sum_exp_shared()->set_offset(0); },
       "log_sum_exp_shared.offset", grpc::StatusCode::INVALID_ARGUMENT},
      {"log-sum-exp over the end of the output",
       [&](Request& r) { r.mutable_log_sum_exp_shared()->set_offset(r.log_sum_exp_shared().offset() - 4); },
       "log_sum_exp_shared.offset", grpc::StatusCode::INVALID_ARGUMENT},
      {"log-sum-exp between floats",
       [&](Request& r) { r.mutable_log_sum_exp_shared()->set_offset(r.log_sum_exp_shared().offset() + 2); },
       "log_sum_exp_shared.offset", grpc::StatusCode::INVALID_ARGUMENT},
      {"a place for a log-sum-exp that is not asked for", [](Request& r) { r.set_return_log_sum_exp(false); },
       "log_sum_exp_shared", grpc::StatusCode::INVALID_ARGUMENT},
      {"another's handle for the log-sum-exp",
       [](Request& r) { (*r.mutable_log_sum_exp_shared()->mutable_region())[15] ^= 1; }, "log_sum_exp_shared.region",
       grpc::StatusCode::FAILED_PRECONDITION},
  };
  const test::LocalCaller local(path() + ".shm");
  ASSERT_EQ(local.Greet().code(), 0);
  for (const auto& [what, lie, field, code] : lies) {
    Request request = Shared();
    lie(request);
    v1::ComputeAttentionResponse response;
    const grpc::Status status = server_->Compute(request, &response);
    EXPECT_EQ(status.error_code(), code) << what << ": " << status.error_message();
    EXPECT_EQ(DetailOf(status).field(), field) << what << ": " << status.error_message();
    const v1::LocalAnswer answer = local.Call(request);
    EXPECT_EQ(answer.code(), code) << what;
    EXPECT_EQ(answer.message(), status.error_message()) << what;
    EXPECT_EQ(answer.detail().SerializeAsString(), DetailOf(status).SerializeAsString()) << what;
  }
  v1::ComputeAttentionResponse response;
  EXPECT_TRUE(server_->Compute(Shared(), &response).ok());
}

TEST_F(LyingTest, ARegionThatChangesUnderneathSpoilsOnlyItsOwnResult) {
  v1::ComputeAttentionRequest request = Shared();
  std::atomic<bool> stop{false};
  std::thread scribbler([&] {
    auto* const bytes = static_cast<volatile unsigned char*>(memory_.get());
    for (unsigned i = 0; !stop.load(); ++i) bytes[i * 7919 % kRegion] = static_cast<unsigned char>(i);
  });
  for (int i = 0; i < 200; ++i) {
    v1::ComputeAttentionResponse response;
    EXPECT_TRUE(server_->Compute(request, &response).ok());
  }
  stop = true;
  scribbler.join();
  const v1::ComputeAttentionRequest sent = ValidRequest(kSmall);
  v1::ComputeAttentionResponse response;
  ASSERT_TRUE(server_->Compute(sent, &response).ok());
  ExpectMatchesReference(sent, response);
}

TEST_F(LyingTest, ARegionReleasedDuringCallsIsHarmless) {
  std::atomic<bool> stop{false};
  std::thread registrar([&] {
    while (!stop.load()) {
      const auto other = std::make_shared<client::SharedMemory>(path() + ".shm");
      const std::shared_ptr<void> memory = *other->Allocate(kRegion);
      const auto place = Registered(*other, memory);
      if (!place.has_value()) continue;
      v1::ComputeAttentionRequest request = Shared();
      const std::string handle(place->region.begin(), place->region.end());
      for (v1::SharedTensor* tensor : {request.mutable_q_shared(), request.mutable_k_shared(),
                                       request.mutable_v_shared(), request.mutable_output_shared()}) {
        tensor->set_region(handle);
      }
      std::thread caller([&, request] {
        v1::ComputeAttentionResponse response;
        server_->Compute(request, &response);
      });
      other->Forget();  // closes the connection
      caller.join();
    }
  });
  for (int i = 0; i < 300; ++i) {
    v1::ComputeAttentionResponse response;
    ASSERT_TRUE(server_->Compute(ValidRequest(kSmall), &response).ok());
  }
  stop = true;
  registrar.join();
}

}  // namespace
}  // namespace attnd::e2e
