#include "server/session/local_session.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "attnd/v1/local.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/wire_format_lite.h"
#include "grpcpp/support/slice.h"
#include "memory/no_memory.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

// Upper bounds: an answer's bytes other than tensors and lengths, and the bytes that wrap a message.
constexpr std::int64_t kHeaderBytes = 1024;
constexpr std::int64_t kWrappingBytes = 16;
// Upper bound on one length on the wire, which is below 2^35.
constexpr std::int64_t kLengthBytes = 5;
constexpr auto kDatagram = static_cast<std::int64_t>(kMaxDatagramBytes);

// LocalReply{session: message}.
std::string Wrapped(const grpc::ByteBuffer& message) {
  using google::protobuf::internal::WireFormatLite;
  std::vector<grpc::Slice> slices;
  static_cast<void>(message.Dump(&slices));
  std::string datagram;
  datagram.reserve(message.Length() + kWrappingBytes);
  {
    google::protobuf::io::StringOutputStream stream(&datagram);
    google::protobuf::io::CodedOutputStream out(&stream);
    out.WriteTag(
        WireFormatLite::MakeTag(v1::LocalReply::kSessionFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
    out.WriteVarint32(static_cast<std::uint32_t>(message.Length()));
  }
  for (const grpc::Slice& slice : slices) {
    datagram.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return datagram;
}

// Never throws.
std::string EndMessage(const absl::Status& status) {
  // LocalReply{session_end: {code: RESOURCE_EXHAUSTED}}; short enough for std::string's inline buffer, so nothing is
  // allocated.
  std::string datagram("\x22\x02\x08\x08", 4);
  static_cast<void>(memory::CatchNoMemoryIn([&] {
    v1::LocalReply reply;
    v1::LocalSessionEnd& end = *reply.mutable_session_end();
    if (!status.ok()) SetError(status, end);
    if (const std::optional<absl::Duration> delay = RetryDelayOf(status)) *end.mutable_retry_delay() = ToProto(*delay);
    datagram = reply.SerializeAsString();
  }));
  return datagram;
}

SessionCaller CallerOf(const Peer& peer, memory::Ledger& ledger) {
  const std::string name = UserName(peer);
  return {absl::StrCat("local:", name), ledger.AccountOf(name), ledger.AccountOf("sessions of " + name)};
}

// The connection's socket provides the flow control that gRPC otherwise does: this pauses it while the driver asks for
// no message, and it pauses itself while answers wait in it.
class Driver final : public SessionDriver, public LocalSession {
 public:
  Driver(const SessionHost& host, const Peer& peer, Pass pass, std::shared_ptr<DatagramSink> sink)
      : SessionDriver(host, CallerOf(peer, host.engine.ledger()), std::move(pass)), sink_(std::move(sink)) {}

  using SessionDriver::Start;

  void Take(absl::string_view message) override {
    {
      absl::MutexLock lock(&mutex_);
      asked_ = false;
    }
    grpc::ByteBuffer bytes;
    const absl::Status copied = memory::CatchNoMemoryIn([&] {
      const grpc::Slice slice(message.data(), message.size());
      bytes = grpc::ByteBuffer(&slice, 1);
    });
    if (!copied.ok()) Fail(copied);
    SessionDriver::Take(bytes);
    absl::MutexLock lock(&mutex_);
    if (asked_ || ended_) return;
    paused_ = true;
    sink_->Pause();
  }

  void Close() override { SessionDriver::Close(); }

  void Drop() override {
    Lose(memory::CatchNoMemory([] { return absl::CancelledError("the caller closed the connection"); }));
  }

 private:
  void Ask() override {
    absl::MutexLock lock(&mutex_);
    asked_ = true;
    GoOn();
  }

  void Send(SessionAnswer answer) override {
    std::string datagram;
    std::shared_ptr<memory::Ticket> lease;
    const absl::Status made = memory::CatchNoMemoryIn([&] {
      datagram = Wrapped(answer.message);
      lease = std::make_shared<memory::Ticket>(std::move(answer.lease));
    });
    answer.message.Clear();
    if (made.ok()) {
      sink_->Send(std::move(datagram), std::move(lease));
    } else {
      Fail(made);
    }
    Sent(true);
  }

  void SayEnd(const absl::Status& status, Pass pass) override {
    sink_->Send(EndMessage(status), nullptr);
    pass.reset();  // a stopping server keeps its listener until then
    {
      absl::MutexLock lock(&mutex_);
      ended_ = true;
      GoOn();
    }
    Release();
  }

  void GoOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (std::exchange(paused_, false)) sink_->Resume();
  }

  std::int64_t max_message_bytes() const override { return kDatagram - kWrappingBytes; }
  std::int64_t MaxSentBytes(const SessionShape& shape) const override {
    return kDatagram - kHeaderBytes - kLengthBytes * std::max(shape.rows, shape.sources);
  }

  const std::shared_ptr<DatagramSink> sink_;
  absl::Mutex mutex_;
  bool asked_ ABSL_GUARDED_BY(mutex_) = false;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::shared_ptr<LocalSession> LocalSessionService::Begin(const Peer& peer, const std::shared_ptr<DatagramSink>& sink) {
  std::shared_ptr<Driver> session;
  const absl::Status begun = memory::CatchNoMemory([&] {
    if (!gate_.Enter()) return StoppingError();
    Pass pass(&gate_);
    session = std::make_shared<Driver>(host_, peer, std::move(pass), sink);
    return session->Start(session);
  });
  if (begun.ok()) return session;
  sink->Send(EndMessage(begun), nullptr);
  return nullptr;
}

}  // namespace attnd::server
