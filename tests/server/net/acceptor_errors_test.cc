// This binary's own accept4() and poll() stand before the system's, so that the system can run out of what it likes.
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "attnd/shm/unique_fd.h"
#include "gtest/gtest.h"
#include "server/net/acceptor.h"
#include "server/net/unix_socket.h"
#include "temp_folder.h"
#include "wait.h"

namespace {

// What the acceptor's thread asked of the system, and what it is told.
struct System {
  std::mutex mutex;
  std::deque<int> accept_errors;  // the next ones, and then the truth
  std::deque<int> poll_errors;
  bool always = false;  // the last accept error stays
  int failed_accepts = 0;
  int rests = 0;      // polls of nothing but the end, for a while
  bool busy = false;  // a poll that would return at once without a reason to
} system_;

std::thread::id main_thread;

}  // namespace

extern "C" int accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  {
    const std::lock_guard<std::mutex> lock(system_.mutex);
    if (!system_.accept_errors.empty()) {
      errno = system_.accept_errors.front();
      if (!system_.always) system_.accept_errors.pop_front();
      ++system_.failed_accepts;
      return -1;
    }
  }
  return static_cast<int>(syscall(SYS_accept4, fd, address, size, flags));
}

extern "C" int poll(pollfd* fds, nfds_t count, int timeout) {
  if (std::this_thread::get_id() != main_thread) {
    const std::lock_guard<std::mutex> lock(system_.mutex);
    system_.busy |= timeout == 0;
    system_.rests += timeout > 0 && count == 1 ? 1 : 0;
    if (!system_.poll_errors.empty()) {
      errno = system_.poll_errors.front();
      system_.poll_errors.pop_front();
      return -1;
    }
  }
  return static_cast<int>(syscall(SYS_poll, fds, count, timeout));
}

namespace attnd::server {
namespace {

class AcceptorErrorsTest : public testing::Test {
 protected:
  AcceptorErrorsTest() {
    main_thread = std::this_thread::get_id();
    Forget();
  }
  ~AcceptorErrorsTest() override {
    Forget();
    acceptor_ = nullptr;
  }

  static void Forget() {
    const std::lock_guard<std::mutex> lock(system_.mutex);
    system_.accept_errors.clear();
    system_.poll_errors.clear();
    system_.always = system_.busy = false;
    system_.failed_accepts = system_.rests = 0;
  }
  static int rests() {
    const std::lock_guard<std::mutex> lock(system_.mutex);
    return system_.rests;
  }

  std::string Path(int socket) const { return folder_.path() + "/" + std::to_string(socket); }
  ListeningSocket Listen(int socket) const {
    absl::StatusOr<ListeningSocket> listening = ListenUnix(Path(socket), SOCK_STREAM, 0600);
    EXPECT_TRUE(listening.ok()) << listening.status();
    return *std::move(listening);
  }
  void Create(int sockets) {
    std::vector<ListeningSocket> all;
    for (int i = 0; i < sockets; ++i) all.push_back(Listen(i));
    acceptor_ = *Acceptor::Create(std::move(all), {1000, 1000, {}});
  }
  void Start() {
    ASSERT_TRUE(acceptor_
                    ->Start([this](shm::UniqueFd connection) {
                      absl::MutexLock lock(&mutex_);
                      if (no_memory_ > 0) {
                        --no_memory_;
                        throw std::bad_alloc();
                      }
                      taken_.push_back(std::move(connection));
                    })
                    .ok());
  }
  shm::UniqueFd Connected(int socket = 0) const {
    shm::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_un address = *SocketAddress(Path(socket));
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }
  bool Takes(std::size_t count) {
    return test::Becomes([&] {
      absl::MutexLock lock(&mutex_);
      return taken_.size() >= count;
    });
  }

  const test::TempFolder folder_;
  absl::Mutex mutex_;
  int no_memory_ = 0;  // how many connections find none
  std::vector<shm::UniqueFd> taken_;
  std::unique_ptr<Acceptor> acceptor_;
};

// It is gone, and the next one may be fine: it is taken without a rest.
TEST_F(AcceptorErrorsTest, AnErrorOfOneConnectionHoldsNoOtherUp) {
  Create(1);
  Start();
  std::vector<shm::UniqueFd> clients;
  for (const int error : {EINTR, ECONNABORTED, EPROTO, EPERM, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EOPNOTSUPP,
                          EHOSTUNREACH, ENETUNREACH}) {
    SCOPED_TRACE(error);
    Forget();
    {
      const std::lock_guard<std::mutex> lock(system_.mutex);
      system_.accept_errors = {error, error};
    }
    clients.push_back(Connected());
    ASSERT_TRUE(Takes(clients.size()));
    EXPECT_EQ(rests(), 0);
    const std::lock_guard<std::mutex> lock(system_.mutex);
    EXPECT_EQ(system_.failed_accepts, 2);
  }
}

// The connection waits. Without a rest the thread would ask for it again and again, on a whole CPU.
TEST_F(AcceptorErrorsTest, WithoutDescriptorsOrMemoryItRestsAndComesBack) {
  Create(1);
  Start();
  std::vector<shm::UniqueFd> clients;
  for (const int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM, EINVAL}) {
    SCOPED_TRACE(error);
    Forget();
    {
      const std::lock_guard<std::mutex> lock(system_.mutex);
      system_.accept_errors = {error, error, error};
    }
    clients.push_back(Connected());
    ASSERT_TRUE(Takes(clients.size()));
    EXPECT_EQ(rests(), 3) << "one after each failure";
    const std::lock_guard<std::mutex> lock(system_.mutex);
    EXPECT_FALSE(system_.busy);
  }
}

TEST_F(AcceptorErrorsTest, PollMayFailToo) {
  Create(1);
  for (const auto& [error, rest] : {std::pair{EINTR, 0}, {ENOMEM, 1}}) {
    SCOPED_TRACE(error);
    Forget();
    {
      const std::lock_guard<std::mutex> lock(system_.mutex);
      system_.poll_errors = {error};
    }
    if (error == EINTR) Start();
    const shm::UniqueFd wakes = Connected();  // from the poll before
    const shm::UniqueFd client = Connected();
    {
      absl::MutexLock lock(&mutex_);
      taken_.clear();
    }
    ASSERT_TRUE(test::Becomes([&] {
      const std::lock_guard<std::mutex> lock(system_.mutex);
      return system_.poll_errors.empty();
    }));
    const shm::UniqueFd next = Connected();
    ASSERT_TRUE(Takes(1));
    EXPECT_EQ(rests(), rest);
  }
}

TEST_F(AcceptorErrorsTest, WithoutMemoryAConnectionIsClosedAndTheOthersWait) {
  Create(1);
  no_memory_ = 1;
  Start();
  const shm::UniqueFd closed = Connected();
  char byte = 0;
  EXPECT_TRUE(test::Becomes([&] { return recv(closed.get(), &byte, 1, MSG_DONTWAIT) == 0; }));
  const shm::UniqueFd next = Connected();
  ASSERT_TRUE(Takes(1));
  EXPECT_EQ(rests(), 1);
}

TEST_F(AcceptorErrorsTest, StopsWhileItRests) {
  Create(1);
  {
    const std::lock_guard<std::mutex> lock(system_.mutex);
    system_.accept_errors = {EMFILE};
    system_.always = true;
  }
  Start();
  const shm::UniqueFd client = Connected();
  EXPECT_TRUE(test::Becomes([] { return rests() > 0; }));
  ASSERT_TRUE(test::Ends([this] { acceptor_->Stop(); }));
  char byte = 0;
  EXPECT_TRUE(recv(client.get(), &byte, 1, MSG_DONTWAIT) <= 0 && errno != EAGAIN) << "nobody takes it any more";
}

// Many that wait at one socket do not hold up the one at another.
TEST_F(AcceptorErrorsTest, SocketsTakeTurns) {
  Create(2);
  std::vector<shm::UniqueFd> clients;
  for (int i = 0; i < 200; ++i) clients.push_back(Connected(0));
  clients.push_back(Connected(1));
  Start();
  ASSERT_TRUE(Takes(clients.size()));
  absl::MutexLock lock(&mutex_);
  // The path of the socket where each was taken.
  std::size_t place = 0;
  for (; place < taken_.size(); ++place) {
    sockaddr_un address{};
    socklen_t size = sizeof(address);
    ASSERT_EQ(getsockname(taken_[place].get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    if (address.sun_path == Path(1)) break;
  }
  EXPECT_EQ(place, 64U) << "a turn of the first socket";
}

}  // namespace
}  // namespace attnd::server
