#include "fake_local_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <vector>

#include "attnd/shm/protocol.h"
#include "fake_server.h"

namespace attnd::client {
namespace {

bool Ignore(const FakeLocalServer::Peer&, const v1::LocalRequest&) { return true; }

constexpr std::size_t kLargest = std::size_t{1} << 17;

shm::UniqueFd ListenAt(const std::string& path) {
  shm::UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  unlink(path.c_str());
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(fd.get(), 200), 0);
  return fd;
}

}  // namespace

FakeLocalServer::FakeLocalServer(const std::string& path)
    : hello_(Greet),
      call_(Answer),
      cancel_(Ignore),
      session_(Ignore),
      session_close_(Ignore),
      listener_(ListenAt(path)) {
  EXPECT_EQ(pipe2(stop_, O_CLOEXEC), 0);
  thread_ = std::thread([this] { Serve(); });
}

void FakeLocalServer::Stop() {
  if (!thread_.joinable()) return;
  close(stop_[1]);
  thread_.join();
  close(stop_[0]);
}

FakeLocalServer::~FakeLocalServer() {
  Stop();
  for (const auto& [handle, region] : regions_) munmap(region.data, region.size);
}

bool FakeLocalServer::Send(const Peer& peer, const std::string& datagram) {
  return send(peer->get(), datagram.data(), datagram.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(datagram.size());
}

bool FakeLocalServer::Welcome(const Peer& peer, v1::LocalWelcome welcome) {
  if (welcome.version() == 0) welcome.set_version(1);
  if (welcome.max_message_bytes() == 0) welcome.set_max_message_bytes(65536);
  if (welcome.max_calls() == 0) welcome.set_max_calls(256);
  v1::LocalReply reply;
  *reply.mutable_welcome() = welcome;
  return Send(peer, reply.SerializeAsString());
}

v1::LocalReply FakeLocalServer::ResultOf(const v1::LocalRequest& request) {
  v1::LocalReply reply;
  v1::LocalAnswer& answer = *reply.mutable_answer();
  answer.set_id(request.call().id());
  v1::ComputeAttentionResponse& result = *answer.mutable_result();
  std::string log_sum_exp;
  PlainAttention(request.call().request(), *result.mutable_output(), log_sum_exp);
  if (request.call().request().return_log_sum_exp()) result.set_log_sum_exp(log_sum_exp);
  result.set_dtype(v1::DTYPE_FP32);
  result.set_version(1);
  result.set_content_hash("hash");
  return reply;
}

bool FakeLocalServer::Answer(const Peer& peer, const v1::LocalRequest& request) {
  return Send(peer, ResultOf(request).SerializeAsString());
}

unsigned char* FakeLocalServer::SharedData(const v1::SharedTensor& tensor, std::size_t size) {
  const auto found = regions_.find(tensor.region());
  if (found == regions_.end() || tensor.offset() + size > found->second.size) {
    ADD_FAILURE() << "no region has " << size << " bytes at " << tensor.offset();
    return nullptr;
  }
  return found->second.data + tensor.offset();
}

bool FakeLocalServer::TakeFixed(const Peer& peer, const shm::Request& request, const shm::UniqueFd& memory) {
  shm::Reply reply{};
  reply.magic = shm::kMagic;
  reply.version = shm::kVersion;
  reply.code = 5;
  FixedHandler before;
  {
    absl::MutexLock lock(&mutex_);
    before = fixed_;
  }
  if (before != nullptr) before(peer, request.operation);
  if (request.operation == shm::Operation::kRegister && shares_memory) {
    void* const data = mmap(nullptr, request.size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
    EXPECT_NE(data, MAP_FAILED);
    reply.code = 0;
    reply.handle[0] = static_cast<unsigned char>(++registered);
    regions_[std::string(reply.handle.begin(), reply.handle.end())] = {static_cast<unsigned char*>(data), request.size};
  } else if (const auto found = regions_.find(std::string(request.handle.begin(), request.handle.end()));
             request.operation == shm::Operation::kRelease && found != regions_.end()) {
    munmap(found->second.data, found->second.size);
    regions_.erase(found);
    ++released;
    reply.code = 0;
  } else {
    ++signs;
    if (lifeless) return true;
  }
  return send(peer->get(), &reply, sizeof(reply), MSG_NOSIGNAL) == sizeof(reply);
}

bool FakeLocalServer::Take(const Peer& peer) {
  std::string bytes(kLargest, '\0');
  iovec data{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = recvmsg(peer->get(), &message, MSG_CMSG_CLOEXEC);
  if (size <= 0) return false;
  bytes.resize(static_cast<std::size_t>(size));
  shm::UniqueFd memory;
  if (const cmsghdr* const part = CMSG_FIRSTHDR(&message); part != nullptr) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(part), sizeof(fd));
    memory = shm::UniqueFd(fd);
  }
  if (bytes.size() == sizeof(shm::Request) && bytes.compare(0, 8, "attndshm") == 0) {
    shm::Request request;
    std::memcpy(&request, bytes.data(), sizeof(request));
    return TakeFixed(peer, request, memory);
  }
  v1::LocalRequest request;
  if (!request.ParseFromString(bytes)) {
    ADD_FAILURE() << "what came is no LocalRequest";
    return false;
  }
  switch (request.kind_case()) {
    case v1::LocalRequest::kHello:
      ++hellos;
      return Get(hello_)(peer, request);
    case v1::LocalRequest::kCall:
      ++calls;
      return Get(call_)(peer, request);
    case v1::LocalRequest::kCancel:
      ++cancels;
      return Get(cancel_)(peer, request);
    case v1::LocalRequest::kSession:
      return Get(session_)(peer, request);
    case v1::LocalRequest::kSessionClose:
      return Get(session_close_)(peer, request);
    case v1::LocalRequest::KIND_NOT_SET:
      break;
  }
  return false;
}

void FakeLocalServer::Serve() {
  std::vector<Peer> peers;
  while (true) {
    std::vector<pollfd> polled{{stop_[0], POLLIN, 0}, {listener_.get(), POLLIN, 0}};
    for (const Peer& peer : peers) polled.push_back({peer->get(), POLLIN, 0});
    poll(polled.data(), polled.size(), -1);
    if (polled[0].revents != 0) return;
    for (std::size_t i = 2; i < polled.size(); ++i) {
      if (polled[i].revents != 0 && !Take(peers[i - 2])) peers[i - 2] = nullptr;
    }
    std::erase(peers, nullptr);
    if (polled[1].revents != 0) {
      peers.push_back(std::make_shared<shm::UniqueFd>(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
      ++connections;
    }
    standing = static_cast<int>(peers.size());
  }
}

}  // namespace attnd::client
