#include "server/shm/closer.h"

#include <fcntl.h>
#include <unistd.h>

#include <memory>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

// Both ends of a pipe.
std::pair<shm::UniqueFd, shm::UniqueFd> Pipe() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  return {shm::UniqueFd(ends[0]), shm::UniqueFd(ends[1])};
}

// What waits when it goes, as the close of a file may.
class Slow {
 public:
  explicit Slow(const absl::Notification& go_on) : go_on_(go_on) {}
  ~Slow() { go_on_.WaitForNotification(); }

 private:
  const absl::Notification& go_on_;
};

TEST(CloserTest, ClosesAndReleasesWhatItIsGiven) {
  auto [reader, writer] = Pipe();
  const auto held = std::make_shared<const int>(1);
  Closer closer;
  closer.Close(shm::UniqueFd());
  closer.Release(nullptr);
  closer.Release(held);
  closer.Close(std::move(writer));
  char byte = 0;
  EXPECT_EQ(read(reader.get(), &byte, 1), 0) << "returns at the end, when the writer is closed";
  EXPECT_EQ(held.use_count(), 1);
}

TEST(CloserTest, KeepsNobodyWaitingAndSaysWhatWaits) {
  absl::Notification go_on;
  auto [reader, writer] = Pipe();
  char byte = 0;
  {
    const absl::Time begin = absl::Now();
    Closer closer;
    closer.Release(std::make_shared<const Slow>(go_on));
    EXPECT_EQ(closer.waiting(), 0U) << "of descriptors";
    closer.Close(std::move(writer));
    EXPECT_EQ(closer.waiting(), 1U);
    EXPECT_LT(absl::Now() - begin, absl::Milliseconds(900));
  }
  // It went without what it could not close, which its thread closes in the end.
  go_on.Notify();
  EXPECT_EQ(read(reader.get(), &byte, 1), 0);
}

TEST(CloserTest, ItsEndWaitsForWhatIsQuick) {
  const auto held = std::make_shared<const int>(1);
  for (int i = 0; i < 100; ++i) {
    {
      Closer closer;
      closer.Release(held);
    }
    EXPECT_EQ(held.use_count(), 1);
  }
}

}  // namespace
}  // namespace attnd::server
