#include "server/session/session_stream.h"

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "memory/no_memory.h"
#include "server/rpc/deadline.h"
#include "server/rpc/pushback.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

SessionCaller CallerOf(const Peers& peers, grpc::CallbackServerContext& context) {
  return {context.peer(), peers.AccountOf(context), peers.SessionAccountOf(context),
          SteadyDeadline(context.raw_deadline())};
}

class Stream final : public RawReactor, public SessionDriver {
 public:
  Stream(const SessionHost& host, StallWatch& stalls, Pass pass, const Peers& peers,
         grpc::CallbackServerContext& context)
      : SessionDriver(host, CallerOf(peers, context), std::move(pass)),
        max_request_bytes_(host.engine.limits().max_request_bytes),
        stalls_(stalls),
        context_(context) {}

  // Call once, before gRPC has the reactor. The stream then lives until OnDone.
  using SessionDriver::Start;

  void OnReadDone(bool ok) override { ok ? Take(incoming_) : NoMore(); }

  void OnWriteDone(bool ok) override {
    stalls_.End(write_);
    // Released before the stream can end, so that whoever waits for its end finds nothing held.
    outgoing_.message.Clear();
    outgoing_.lease = {};
    Sent(ok);
  }

  void OnCancel() override {
    Lose(memory::CatchNoMemory([] { return absl::CancelledError("the caller cancelled the session"); }));
  }

  void OnDone() override {
    stalls_.End(write_);
    Release();
  }

 private:
  void Ask() override { StartRead(&incoming_); }

  void Send(SessionAnswer answer) override {
    outgoing_ = std::move(answer);
    stalls_.Begin(write_, context_.c_call(), static_cast<std::int64_t>(outgoing_.message.Length()));
    StartWrite(&outgoing_.message);
  }

  void SayEnd(const absl::Status& status, Pass pass) override {
    pass.reset();  // gRPC's own shutdown waits for the rest
    AddPushback(context_, status);
    stalls_.Begin(write_, context_.c_call(), 0);
    Finish(ToGrpc(status));
  }

  void Abandon() override { context_.TryCancel(); }

  std::int64_t max_message_bytes() const override { return max_request_bytes_; }
  std::int64_t MaxSentBytes(const SessionShape&) const override { return AttentionEngine::kAnyBytes; }

  const std::int64_t max_request_bytes_;
  StallWatch& stalls_;
  grpc::CallbackServerContext& context_;  // until OnDone
  grpc::ByteBuffer incoming_;             // owned by gRPC while a read is under way
  SessionAnswer outgoing_;                // owned by gRPC while a write is under way
  StallWatch::Transfer write_;            // its time limit
};

}  // namespace

RawReactor* MakeSessionStream(const SessionHost& host, CallGate& gate, RefusedStreams<RawReactor>& refused,
                              StallWatch& stalls, const Peers& peers, grpc::CallbackServerContext& context) {
  std::shared_ptr<Stream> stream;
  const absl::Status made = memory::CatchNoMemory([&] {
    if (!gate.Enter()) return StoppingError();
    Pass pass(&gate);
    stream = std::make_shared<Stream>(host, stalls, std::move(pass), peers, context);
    return stream->Start(stream);
  });
  if (!made.ok()) return refused.Refuse(ToGrpc(made));
  return stream.get();
}

}  // namespace attnd::server
