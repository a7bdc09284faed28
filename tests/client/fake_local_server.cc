#include "fake_local_server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
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

void FakeLocalServer::HangUp() {
  absl::MutexLock lock(&mutex_);
  for (const auto& weak : peers_) {
    if (const Peer peer = weak.lock()) shutdown(peer->get(), SHUT_RDWR);
  }
}

FakeLocalServer::~FakeLocalServer() {
  Stop();
  absl::MutexLock lock(&mutex_);
  for (const auto& [handle, region] : regions_) munmap(region.data, region.size);
  for (const Region& region : unmapped_later_) munmap(region.data, region.size);
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
  absl::MutexLock lock(&mutex_);
  const auto found = regions_.find(tensor.region());
  if (found == regions_.end() || tensor.offset() + size > found->second.size) {
    ADD_FAILURE() << "no region has " << size << " bytes at " << tensor.offset();
    return nullptr;
  }
  return found->second.data + tensor.offset();
}

v1::ComputeAttentionRequest FakeLocalServer::WithTensors(const v1::ComputeAttentionRequest& request) {
  v1::ComputeAttentionRequest whole = request;
  const auto take = [&](bool shared, const v1::SharedTensor& place, std::int64_t elements, std::string* to) {
    if (!shared) return;
    const auto bytes = static_cast<std::size_t>(elements) * sizeof(float);
    if (const unsigned char* const from = SharedData(place, bytes)) {
      to->assign(reinterpret_cast<const char*>(from), bytes);
    }
  };
  const std::int64_t keys = request.batch() * request.kv_heads() * request.key_length();
  take(request.has_q_shared(), request.q_shared(),
       request.batch() * request.heads() * request.query_length() * request.head_dim(), whole.mutable_q());
  take(request.has_k_shared(), request.k_shared(), keys * request.head_dim(), whole.mutable_k());
  take(request.has_v_shared(), request.v_shared(), keys * request.value_head_dim(), whole.mutable_v());
  return whole;
}

void FakeLocalServer::PlaceResults(const v1::ComputeAttentionRequest& request, std::string& output,
                                   std::string& log_sum_exp) {
  const auto place = [&](bool shared, const v1::SharedTensor& at, std::string& bytes) {
    if (!shared) return;
    if (unsigned char* const to = SharedData(at, bytes.size())) std::copy(bytes.begin(), bytes.end(), to);
    bytes.clear();
  };
  place(request.has_output_shared(), request.output_shared(), output);
  place(request.has_log_sum_exp_shared(), request.log_sum_exp_shared(), log_sum_exp);
}

bool FakeLocalServer::Reply(const Peer& peer, int code, unsigned char mark) {
  shm::Reply reply{};
  reply.magic = shm::kMagic;
  reply.version = shm::kVersion;
  reply.code = code;
  reply.handle[0] = mark;
  return send(peer->get(), &reply, sizeof(reply), MSG_NOSIGNAL) == sizeof(reply);
}

bool FakeLocalServer::TakeFixed(const Peer& peer, const shm::Request& request, const shm::UniqueFd& memory) {
  shm::Reply reply{};
  reply.magic = shm::kMagic;
  reply.version = shm::kVersion;
  reply.code = 5;
  FixedHandler before;
  RequestHandler instead;
  {
    absl::MutexLock lock(&mutex_);
    before = fixed_;
    instead = request_;
  }
  if (before != nullptr) before(peer, request.operation);
  if (instead != nullptr && instead(peer, request)) return true;
  absl::MutexLock lock(&mutex_);
  if (request.operation == shm::Operation::kRegister && shares_memory) {
    void* const data = mmap(nullptr, request.size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
    EXPECT_NE(data, MAP_FAILED);
    reply.code = 0;
    const int number = ++registered;
    std::memcpy(reply.handle.data(), &number, sizeof(number));
    regions_[std::string(reply.handle.begin(), reply.handle.end())] = {static_cast<unsigned char*>(data), request.size};
  } else if (const auto found = regions_.find(std::string(request.handle.begin(), request.handle.end()));
             request.operation == shm::Operation::kRelease && found != regions_.end()) {
    unmapped_later_.push_back(found->second);
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
      absl::MutexLock lock(&mutex_);
      peers_.emplace_back(peers.back());
      ++connections;
    }
    standing = static_cast<int>(peers.size());
  }
}

}  // namespace attnd::client
