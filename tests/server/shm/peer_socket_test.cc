// A connection's socket with a peer that does not read, breaks off, or sends more than there is room for.
#include "server/shm/peer_socket.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

class PeerSocketTest : public testing::Test {
 protected:
  PeerSocketTest() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    peer_ = shm::UniqueFd(ends[1]);
    number_ = ends[0];
    socket_ = std::make_unique<PeerSocket>(shm::UniqueFd(ends[0]), watch_);
    EXPECT_TRUE(socket_->Begin());
    const timeval patience{20, 0};
    EXPECT_EQ(setsockopt(peer_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
  }

  // What the listener would see at once of the socket: epoll's events.
  std::uint32_t Events() const {
    epoll_event event{};
    while (epoll_wait(epoll_.get(), &event, 1, 0) == 1) {
      if (event.data.fd == number_) return event.events;
    }
    return 0;
  }
  bool Woken() const {
    eventfd_t count = 0;
    return eventfd_read(wake_.get(), &count) == 0;
  }
  std::string Read() const {
    std::string bytes(kMaxDatagramBytes, '\0');
    bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(0, recv(peer_.get(), bytes.data(), bytes.size(), 0))));
    return bytes;
  }
  // Sends until something is kept; returns how many were sent, that one included.
  int Fill(const std::string& bytes, const std::shared_ptr<const int>& held = nullptr) {
    int sent = 0;
    while (sent < 10'000 && !socket_->StuckSince().has_value()) socket_->Send(std::to_string(sent++) + bytes, held);
    EXPECT_TRUE(socket_->StuckSince().has_value());
    return sent;
  }

  const shm::UniqueFd epoll_{epoll_create1(EPOLL_CLOEXEC)};
  const shm::UniqueFd wake_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  const std::shared_ptr<PeerSocket::Watch> watch_ = std::make_shared<PeerSocket::Watch>(epoll_.get(), wake_.get());
  shm::UniqueFd peer_;
  int number_ = -1;
  std::unique_ptr<PeerSocket> socket_;
  std::array<char, 1000> buffer_{};
};

TEST_F(PeerSocketTest, SendsAtOnceAndLetsGo) {
  const auto held = std::make_shared<const int>(1);
  socket_->Send("word", held);
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_EQ(Read(), "word");
  EXPECT_FALSE(socket_->StuckSince().has_value());
  EXPECT_EQ(watch_->stuck.load(), 0);
  EXPECT_FALSE(Woken());
}

TEST_F(PeerSocketTest, ReceivesNothingInAPause) {
  bool ended = false;
  ASSERT_EQ(send(peer_.get(), "first", 5, 0), 5);
  EXPECT_EQ(Events(), EPOLLIN);
  socket_->Pause();
  EXPECT_EQ(Events(), 0U) << "the listener is not woken over and over";
  EXPECT_FALSE(socket_->Receive(absl::MakeSpan(buffer_), ended).has_value());
  EXPECT_FALSE(ended);
  socket_->Send("an answer", nullptr);
  EXPECT_EQ(Read(), "an answer");
  // What is kept meanwhile is sent, and the pause goes on.
  const int sent = Fill(std::string(10'000, 'x'));
  for (int i = 1; i < sent; ++i) Read();
  EXPECT_EQ(Events(), EPOLLOUT);
  socket_->Flush();
  EXPECT_EQ(Events(), 0U);
  socket_->Resume();
  EXPECT_EQ(Events(), EPOLLIN);
  const std::optional<Datagram> datagram = socket_->Receive(absl::MakeSpan(buffer_), ended);
  ASSERT_TRUE(datagram.has_value());
  EXPECT_EQ(datagram->bytes, "first");
  // The peer's end is seen in a pause too.
  socket_->Pause();
  peer_ = shm::UniqueFd();
  EXPECT_NE(Events() & EPOLLHUP, 0U);
}

TEST_F(PeerSocketTest, KeepsWhatHasNoRoomAndReceivesNothingMeanwhile) {
  const auto held = std::make_shared<const int>(1);
  const auto before = PeerSocket::Clock::now();
  const std::string filler(10'000, 'x');
  int sent = Fill(filler, held);
  EXPECT_EQ(held.use_count(), 2) << "only what is kept is held";
  for (int i = 0; i < 10; ++i) socket_->Send(std::to_string(sent++) + filler, held);
  EXPECT_EQ(held.use_count(), 12);
  EXPECT_GE(*socket_->StuckSince(), before);
  EXPECT_EQ(watch_->stuck.load(), 1);
  EXPECT_TRUE(Woken());
  ASSERT_EQ(send(peer_.get(), "ask", 3, 0), 3);
  EXPECT_EQ(Events(), 0U) << "it watches for room alone";
  bool ended = true;
  EXPECT_FALSE(socket_->Receive(absl::MakeSpan(buffer_), ended).has_value());
  EXPECT_FALSE(ended);

  for (int i = 0; i < sent; ++i) {
    EXPECT_EQ(Read(), std::to_string(i) + filler) << "in order";
    if ((Events() & EPOLLOUT) != 0) socket_->Flush();
  }
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_FALSE(socket_->StuckSince().has_value());
  EXPECT_EQ(watch_->stuck.load(), 0);
  EXPECT_EQ(Events(), static_cast<std::uint32_t>(EPOLLIN));
  EXPECT_EQ(socket_->Receive(absl::MakeSpan(buffer_), ended)->bytes, "ask");
}

TEST_F(PeerSocketTest, EachDatagramThatGoesGivesNewTime) {
  const auto held = std::make_shared<const int>(1);
  Fill(std::string(60'000, 'x'), held);
  for (int i = 0; i < 20; ++i) socket_->Send(std::string(60'000, 'y'), held);
  const auto since = *socket_->StuckSince();
  const auto kept = held.use_count();
  socket_->Flush();
  EXPECT_EQ(*socket_->StuckSince(), since) << "nothing went";
  // Until something went, but not all.
  for (int i = 0; i < 1000 && held.use_count() == kept; ++i) {
    Read();
    socket_->Flush();
  }
  ASSERT_LT(held.use_count(), kept);
  ASSERT_TRUE(socket_->StuckSince().has_value());
  EXPECT_GT(*socket_->StuckSince(), since) << "it reads all the time";
}

// A smaller one may find room where the first has found none.
TEST_F(PeerSocketTest, NothingOvertakesWhatIsKept) {
  const std::string filler(60'000, 'x');
  int sent = Fill(filler);
  EXPECT_EQ(Read(), "0" + filler);
  const auto held = std::make_shared<const int>(1);
  socket_->Send("small", held);
  EXPECT_EQ(held.use_count(), 2) << "it was sent before those that wait";
  EXPECT_EQ(watch_->stuck.load(), 1);
  for (int i = 1; i < sent; ++i) {
    socket_->Flush();
    EXPECT_EQ(Read(), std::to_string(i) + filler);
  }
  socket_->Flush();
  EXPECT_EQ(Read(), "small");
  EXPECT_EQ(watch_->stuck.load(), 0);
  EXPECT_EQ(held.use_count(), 1);
}

// A descriptor that found no room in this process is lost: its datagram is not whole.
TEST_F(PeerSocketTest, ADatagramThatLostADescriptorIsNotWhole) {
  char byte = 'd';
  iovec data{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = peer_.get();
  std::memcpy(CMSG_DATA(part), &fd, sizeof(fd));
  bool ended = false;
  for (const bool room : {false, true}) {
    ASSERT_EQ(sendmsg(peer_.get(), &message, 0), 1);
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    rlimit none = before;
    none.rlim_cur = 3;  // those of the standard streams
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, room ? &before : &none), 0);
    const std::optional<Datagram> datagram = socket_->Receive(absl::MakeSpan(buffer_), ended);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    ASSERT_TRUE(datagram.has_value());
    EXPECT_EQ(datagram->whole, room);
    EXPECT_EQ(datagram->descriptors.size(), room ? 1U : 0U);
    EXPECT_FALSE(ended);
  }
}

TEST_F(PeerSocketTest, APeerThatIsGoneIsTold) {
  const auto held = std::make_shared<const int>(1);
  shutdown(peer_.get(), SHUT_RD);
  EXPECT_EQ(Events(), 0U) << "nobody would notice by itself";
  socket_->Send("word", held);
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_NE(Events() & EPOLLHUP, 0U);
  EXPECT_FALSE(socket_->StuckSince().has_value());
}

TEST_F(PeerSocketTest, ClosesForThePeerAtOnceAndDropsWhatIsKept) {
  const auto held = std::make_shared<const int>(1);
  Fill(std::string(60'000, 'x'), held);
  ASSERT_EQ(held.use_count(), 2);
  const shm::UniqueFd fd = socket_->Close();
  EXPECT_EQ(fd.get(), number_);
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_EQ(watch_->stuck.load(), 0);
  EXPECT_EQ(Events(), 0U) << "it is watched no more";
  while (!Read().empty()) {
  }
  EXPECT_LT(send(peer_.get(), "x", 1, MSG_NOSIGNAL), 0);
  socket_->Send("late", held);
  EXPECT_EQ(held.use_count(), 1);
  socket_->Flush();
  socket_->StopReceiving();
  bool ended = false;
  EXPECT_FALSE(socket_->Receive(absl::MakeSpan(buffer_), ended).has_value());
  EXPECT_FALSE(socket_->Close().valid());
}

TEST_F(PeerSocketTest, ReceivesWholeDatagramsTheirDescriptorsAndTheEnd) {
  bool ended = false;
  EXPECT_FALSE(socket_->Receive(absl::MakeSpan(buffer_), ended).has_value());
  EXPECT_FALSE(ended);
  const std::string exact(buffer_.size(), 'a');
  ASSERT_EQ(send(peer_.get(), exact.data(), exact.size(), 0), static_cast<ssize_t>(exact.size()));
  auto datagram = socket_->Receive(absl::MakeSpan(buffer_), ended);
  EXPECT_EQ(datagram->bytes, exact);
  EXPECT_TRUE(datagram->whole);
  EXPECT_TRUE(datagram->descriptors.empty());
  const std::string more = exact + "b";
  ASSERT_EQ(send(peer_.get(), more.data(), more.size(), 0), static_cast<ssize_t>(more.size()));
  EXPECT_FALSE(socket_->Receive(absl::MakeSpan(buffer_), ended)->whole);

  constexpr std::size_t kMost = 253;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMost * sizeof(int))> control{};
  char byte = 'd';
  iovec data{&byte, 1};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(kMost * sizeof(int));
  const std::vector<int> fds(kMost, peer_.get());
  std::memcpy(CMSG_DATA(part), fds.data(), kMost * sizeof(int));
  ASSERT_EQ(sendmsg(peer_.get(), &message, 0), 1);
  datagram = socket_->Receive(absl::MakeSpan(buffer_), ended);
  EXPECT_TRUE(datagram->whole);
  EXPECT_EQ(datagram->descriptors.size(), kMost);
  for (const shm::UniqueFd& fd : datagram->descriptors) EXPECT_TRUE(fd.valid());

  EXPECT_FALSE(ended);
  shutdown(peer_.get(), SHUT_WR);
  EXPECT_TRUE(socket_->Receive(absl::MakeSpan(buffer_), ended).has_value() && ended);
}

// As the threads that compute do, while the listener flushes and closes.
TEST_F(PeerSocketTest, ManyThreadsSendWhileOneFlushesAndCloses) {
  constexpr int kThreads = 4, kEach = 500;
  const auto held = std::make_shared<const int>(1);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int sent = 0; sent < kEach; ++sent) socket_->Send(std::string(5'000, 'x'), held);
    });
  }
  std::thread flusher([&] {
    for (int i = 0; i < 20'000; ++i) socket_->Flush();
  });
  for (int i = 0; i < kThreads * kEach / 2; ++i) {
    socket_->Flush();
    EXPECT_EQ(Read().size(), 5'000U);
  }
  flusher.join();
  const shm::UniqueFd fd = socket_->Close();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace attnd::server
