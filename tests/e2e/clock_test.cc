// A clock that is set while calls run: how long they may take goes by the time that passes.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "attnd/v1/attention.grpc.pb.h"
#include "e2e_support.h"
#include "gtest/gtest.h"
#include "process.h"
#include "temp_folder.h"

namespace attnd::e2e {
namespace {

// What the preloaded clock of another process is off by.
class ClockOffset {
 public:
  explicit ClockOffset(const std::string& path) {
    const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT_EQ(ftruncate(file, sizeof(std::int64_t)), 0);
    void* const bytes = mmap(nullptr, sizeof(std::int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    EXPECT_NE(bytes, MAP_FAILED);
    seconds_ = static_cast<std::atomic<std::int64_t>*>(bytes);
  }
  ~ClockOffset() { munmap(seconds_, sizeof(std::int64_t)); }
  ClockOffset(const ClockOffset&) = delete;
  ClockOffset& operator=(const ClockOffset&) = delete;

  void Set(std::int64_t seconds) { seconds_->store(seconds); }

 private:
  std::atomic<std::int64_t>* seconds_;
};

class ClockTest : public testing::Test {
 protected:
  ClockTest()
      : offset_(folder_.path() + "/offset"),
        process_({"--listen=127.0.0.1:0", "--threads=1"},
                 {"",
                  {absl::StrCat("LD_PRELOAD=", ATTND_SHIFT_CLOCK),
                   absl::StrCat("ATTND_CLOCK_OFFSET=", folder_.path(), "/offset")}}),
        address_(process_.WaitForAddress()) {}

  // Ends by `patience` from now, on the server too. The clock is set by `seconds` while it is on its way.
  grpc::Status CallWhileTheClockIsSet(std::int64_t seconds, std::chrono::seconds patience) {
    const auto stub = v1::AttentionService::NewStub(NewChannel(address_));
    v1::ComputeAttentionRequest request;
    request.set_model("t5-tiny");
    request.set_batch(1);
    request.set_heads(8);
    request.set_query_length(kRows);
    request.set_key_length(kRows);
    request.set_head_dim(64);
    request.set_dtype(v1::DTYPE_FP32);
    const std::string values(static_cast<std::size_t>(8 * kRows * 64 * 4), '\0');
    for (std::string* tensor : {request.mutable_q(), request.mutable_k(), request.mutable_v()}) *tensor = values;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + patience);
    std::atomic<bool> over{false};
    // Again and again: somewhere in between the server has the call.
    std::thread setter([&] {
      while (!over.load()) {
        offset_.Set(seconds);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        offset_.Set(0);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    v1::ComputeAttentionResponse response;
    grpc::Status status = stub->ComputeAttention(&context, request, &response);
    over.store(true);
    setter.join();
    return status;
  }

  static constexpr std::int64_t kRows = 2000;
  test::TempFolder folder_;
  ClockOffset offset_;
  Process process_;
  const std::string address_;
};

TEST_F(ClockTest, NeitherABackwardNorAForwardClockEndsACall) {
  ASSERT_NE(address_, "");
  // Several times: where the server goes by the time of day, half of them fail.
  for (int round = 0; round < 10; ++round) {
    const std::int64_t seconds = round % 2 == 0 ? -7200 : 7200;
    const grpc::Status status = CallWhileTheClockIsSet(seconds, std::chrono::seconds(300));
    EXPECT_TRUE(status.ok()) << seconds << ": " << status.error_message();
  }
}

}  // namespace
}  // namespace attnd::e2e
