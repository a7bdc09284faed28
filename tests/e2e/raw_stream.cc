#include "raw_stream.h"

#include <grpcpp/generic/generic_stub.h>

#include <cstdlib>
#include <iostream>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::e2e {
namespace {

grpc::ByteBuffer Bytes(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace

// Lives until gRPC is done with it, or the process ends.
class RawStream::Call final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  void Begin(const std::shared_ptr<Call>& self) {
    self_ = self;
    AddHold();
    StartCall();
  }

  bool Write(const std::string& message) {
    outgoing_ = Bytes(message);
    StartWrite(&outgoing_);
    return Await(written_, "a message was not taken");
  }

  std::optional<std::string> Read() {
    if (over_) return std::nullopt;
    if (!reading_) StartRead(&incoming_);
    reading_ = true;
    if (!Await(read_, "no answer came")) {
      over_ = true;
      return std::nullopt;
    }
    reading_ = false;
    grpc::Slice flat;
    EXPECT_TRUE(incoming_.DumpToSingleSlice(&flat).ok());
    incoming_.Clear();
    return std::string(flat.begin(), flat.end());
  }

  void WritesDone() { StartWritesDone(); }

  std::optional<grpc::Status> End() {
    RemoveHold();
    absl::MutexLock lock(&mutex_);
    const auto ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return status_.has_value(); };
    mutex_.AwaitWithTimeout(absl::Condition(&ended), test::Patience());
    return status_;
  }

  void OnWriteDone(bool ok) override { Tell(written_, ok); }
  void OnReadDone(bool ok) override { Tell(read_, ok); }
  void OnDone(const grpc::Status& status) override {
    const std::shared_ptr<Call> self = std::move(self_);
    absl::MutexLock lock(&mutex_);
    status_ = status;
  }

 private:
  void Tell(std::optional<bool>& what, bool ok) {
    absl::MutexLock lock(&mutex_);
    what = ok;
  }
  bool Await(std::optional<bool>& what, const char* missing) {
    absl::MutexLock lock(&mutex_);
    const auto told = [&what] { return what.has_value(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&told), test::Patience())) {
      ADD_FAILURE() << missing;
      return false;
    }
    return *std::exchange(what, std::nullopt);
  }

  grpc::ByteBuffer outgoing_, incoming_;
  bool reading_ = false;
  bool over_ = false;  // nothing more is read
  std::shared_ptr<Call> self_;
  absl::Mutex mutex_;
  std::optional<bool> written_, read_;
  std::optional<grpc::Status> status_;
};

RawStream::RawStream(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     std::optional<std::chrono::milliseconds> timeout)
    : call_(std::make_shared<Call>()) {
  if (timeout.has_value()) context_.set_deadline(std::chrono::system_clock::now() + *timeout);
  grpc::GenericStub(channel).PrepareBidiStreamingCall(&context_, method, grpc::StubOptions(), call_.get());
  call_->Begin(call_);
}

RawStream::~RawStream() {
  if (status_.has_value()) return;
  context_.TryCancel();
  if (call_->End().has_value()) return;
  std::cerr << "a call that was cancelled does not end\n";
  std::abort();  // gRPC uses the context still
}

bool RawStream::Write(const std::string& message) { return call_->Write(message); }
void RawStream::WritesDone() { call_->WritesDone(); }
std::optional<std::string> RawStream::Read() { return call_->Read(); }
void RawStream::Cancel() { context_.TryCancel(); }

grpc::Status RawStream::Finish() {
  if (status_.has_value()) return *status_;
  while (Read().has_value()) continue;
  status_ = call_->End();
  if (status_.has_value()) return *status_;
  ADD_FAILURE() << "the call does not end";
  context_.TryCancel();
  std::abort();
}

std::shared_ptr<grpc::Channel> ChannelOfSmallWindows(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  // Left to itself gRPC takes more, as it finds the connection to be fast.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace attnd::e2e
