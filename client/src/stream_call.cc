#include "client/src/stream_call.h"

#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <new>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "client/src/async_runtime.h"
#include "client/src/context.h"
#include "client/src/decode.h"
#include "client/src/encode.h"
#include "client/src/methods.h"
#include "client/src/pieces.h"
#include "client/src/status.h"
#include "contract/asking.h"

namespace attnd::client {
namespace {

using Stub = grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>;
using Rpc = grpc::ClientAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;

// The pieces of one call: which are not sent yet, which are answered, and the result. Thread-safe.
//
// Streams take pieces with Next until none is left for them. Pieces that a stream cannot get answered go to the streams
// that still take pieces ("ask").
class Job {
 public:
  Job(const ComputeRequest& request, const Shape& shape, std::vector<PieceRange> ranges)
      : request_(request), shape_(shape), ranges_(std::move(ranges)) {}

  // Allocates results for which the caller gave no destination. Errors: RESOURCE_EXHAUSTED.
  absl::Status Prepare() {
    if (request_.output.data == nullptr) {
      const auto size = static_cast<std::size_t>(shape_.output_bytes);
      std::shared_ptr<unsigned char[]> memory(new (std::nothrow) unsigned char[size]);
      if (memory == nullptr) {
        return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes of output"));
      }
      request_.output = {memory.get(), size};
      absl::MutexLock lock(&mutex_);
      reply_.output = Tensor(shape_.output_dtype, shape_.output_sizes, Tensor::Segment(memory.get(), size), memory);
    }
    if (request_.return_log_sum_exp && request_.log_sum_exp.data == nullptr) {
      absl::MutexLock lock(&mutex_);
      reply_.log_sum_exp.resize(static_cast<std::size_t>(shape_.log_sum_exp_bytes) / sizeof(float));
      request_.log_sum_exp = {reply_.log_sum_exp.data(), static_cast<std::size_t>(shape_.log_sum_exp_bytes)};
    }
    return absl::OkStatus();
  }

  std::size_t pieces() const { return ranges_.size(); }

  // Sets the number of streams that ask, before the first one does.
  void SetAsking(std::size_t streams) {
    absl::MutexLock lock(&mutex_);
    asking_ = streams;
  }

  // Returns the id of the next piece to send; nullopt if none is left or the call has failed. Sets `last` if the stream
  // must not ask again.
  std::optional<std::uint64_t> Next(bool& last) {
    absl::MutexLock lock(&mutex_);
    std::optional<std::uint64_t> id;
    if (status_.ok() && !given_back_.empty()) {
      id = given_back_.back();
      given_back_.pop_back();
    } else if (status_.ok() && next_ < ranges_.size()) {
      id = next_++;
    }
    last = !status_.ok() || NoneLeft();
    if (last) --asking_;
    return id;
  }

  // The stream asks no more. Returns false if pieces are left and no other stream asks.
  bool StopAsking() {
    absl::MutexLock lock(&mutex_);
    --asking_;
    return asking_ > 0 || NoneLeft();
  }

  // Returns pieces that were sent and will not be answered. Returns false if there are any and no stream asks any more.
  bool GiveBack(const std::set<std::uint64_t>& ids) {
    absl::MutexLock lock(&mutex_);
    given_back_.insert(given_back_.end(), ids.begin(), ids.end());
    return asking_ > 0 || ids.empty();
  }

  // `more`: another piece follows on its stream.
  absl::StatusOr<grpc::ByteBuffer> Encode(std::uint64_t id, bool more, const std::shared_ptr<const void>& loan) const {
    Piece piece = DescribePiece(request_, shape_, ranges_[id]);
    if (auto s = SetTensors(request_, shape_, ranges_[id], piece); !s.ok()) return s;
    return EncodePiece(id, more, piece.request, piece.shape, loan, piece.fields);
  }

  // Copies an answer's tensors to the result. The stream must accept each piece once.
  absl::Status Accept(const PieceReply& answer) {
    const PieceRange& range = ranges_[answer.id()];
    const Piece piece = DescribePiece(request_, shape_, range);
    const absl::StatusOr<ComputeReply> part = answer.Decode(piece.request, piece.shape);
    if (!part.ok()) return part.status();
    if (piece.scattered) Scatter(part->output, request_, shape_, range);
    return Merge(*part);
  }

  // Fails the call. The first error is the call's.
  void Fail(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    status_.Update(status);
  }

  absl::StatusOr<ComputeReply> Take() {
    absl::MutexLock lock(&mutex_);
    if (!status_.ok()) return status_;
    if (answered_ != ranges_.size()) return absl::InternalError("the server ended the stream before it had answered");
    return std::move(reply_);
  }

 private:
  bool NoneLeft() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return given_back_.empty() && next_ == ranges_.size(); }

  absl::Status Merge(const ComputeReply& part) {
    absl::MutexLock lock(&mutex_);
    if (answered_ > 0 && part.content_hash != reply_.content_hash) {
      return absl::AbortedError(
          absl::StrCat("model \"", request_.model, "\" was replaced while the pieces of the call were computed"));
    }
    ++answered_;
    reply_.dtype = part.dtype;
    reply_.version = part.version;
    reply_.content_hash = part.content_hash;
    reply_.queue_time = std::max(reply_.queue_time, part.queue_time);
    reply_.compute_time += part.compute_time;
    reply_.pieces = static_cast<std::int64_t>(ranges_.size());
    return absl::OkStatus();
  }

  ComputeRequest request_;  // constant after Prepare
  const Shape shape_;
  const std::vector<PieceRange> ranges_;
  absl::Mutex mutex_;
  std::size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::uint64_t> given_back_ ABSL_GUARDED_BY(mutex_);
  std::size_t asking_ ABSL_GUARDED_BY(mutex_) = 0;
  std::size_t answered_ ABSL_GUARDED_BY(mutex_) = 0;
  ComputeReply reply_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

class StreamCall;

// One RPC, which carries as many pieces of the job as it can get answered. Ends when the RPC is over and no event of it
// is pending.
class Stream {
 public:
  Stream(StreamCall& call, Job& job, std::size_t max_in_flight, std::shared_ptr<grpc::ClientContext> context)
      : call_(call), job_(job), max_in_flight_(max_in_flight), context_(std::move(context)) {}

  // `asks`: the first piece waits until the server admits the stream.
  void Start(const std::shared_ptr<grpc::Channel>& channel, grpc::CompletionQueue* queue, bool asks);
  void Cancel() { context_->TryCancel(); }

 private:
  struct Event : AsyncRuntime::Event {
    Event(Stream* stream, void (Stream::*handler)(bool)) : stream(stream), handler(handler) {}
    void Run(bool ok) override { (stream->*handler)(ok); }
    Stream* const stream;
    void (Stream::*const handler)(bool);
  };

  void OnAsked(bool ok);
  void OnLetIn(bool ok);
  void OnWritten(bool ok);
  void OnRead(bool ok);
  void OnFinished(bool ok);
  // Sends the next piece, or the end of the pieces, unless a write is under way or the stream must wait.
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool WasSent(std::uint64_t id);
  // The stream's server is stopping, or the stream is over: other streams take the remaining pieces.
  void Leave() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Lets other streams send a piece that a stopping server refused. Returns false if it was refused for another reason,
  // or if no other stream can send it.
  bool PassOn(std::uint64_t id, const absl::Status& refused);

  StreamCall& call_;
  Job& job_;
  const std::size_t max_in_flight_;
  const std::shared_ptr<grpc::ClientContext> context_;
  std::unique_ptr<Rpc> rpc_;
  Event asked_{this, &Stream::OnAsked}, let_in_{this, &Stream::OnLetIn}, written_{this, &Stream::OnWritten},
      read_{this, &Stream::OnRead}, finished_{this, &Stream::OnFinished};
  grpc::ByteBuffer answer_;
  grpc::Status status_;

  absl::Mutex mutex_;
  std::set<std::uint64_t> sent_ ABSL_GUARDED_BY(mutex_);  // sent and not answered
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool last_written_ ABSL_GUARDED_BY(mutex_) = false;  // the stream asks for no more pieces
  bool left_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
};

// The streams of a call, and the caller's memory that they borrow. `over` is called when the last stream has ended and
// the last slice that borrows was destroyed, in either order and on any thread. It must not delete this object before
// it returns.
class StreamCall {
 public:
  StreamCall(const ComputeRequest& request, const Shape& shape, const StreamPlan& plan, std::function<void()> over)
      : plan_(plan), over_(std::move(over)), job_(request, shape, CutIntoPieces(shape, plan.piece_bytes)) {}

  // If Start fails, nothing was started and `over` is not called.
  absl::Status Start(const std::shared_ptr<grpc::Channel>& channel, const CallOptions& options,
                     grpc::CompletionQueue* queue);

  bool streams_ended() {
    absl::MutexLock lock(&mutex_);
    return live_ == 0;
  }
  absl::StatusOr<ComputeReply> Take() { return job_.Take(); }

  // Called by the streams.
  const std::shared_ptr<const void>& loan() const { return loan_; }
  void Fail(const absl::Status& status) {
    job_.Fail(status);
    for (const auto& stream : streams_) stream->Cancel();
  }
  void StreamEnded();
  // The number of streams whose servers are not stopping.
  void StreamLeaves() { --staying_; }
  bool AnyStays() const { return staying_ > 0; }
  void ToldToAsk() { plan_.ask->Told(); }

 private:
  const StreamPlan plan_;
  const std::function<void()> over_;
  Job job_;
  std::vector<std::unique_ptr<Stream>> streams_;  // constant after Start
  std::shared_ptr<const void> loan_;
  std::atomic<int> staying_{0};  // streams whose servers are not stopping
  absl::Mutex mutex_;
  std::size_t live_ ABSL_GUARDED_BY(mutex_) = 0;
};

void Stream::Start(const std::shared_ptr<grpc::Channel>& channel, grpc::CompletionQueue* queue, bool asks) {
  if (asks) {
    context_->AddMetadata(contract::kAskHeader, "1");
    rpc_ = Stub(channel).PrepareCall(context_.get(), method::kStreamAttention, queue);
    rpc_->StartCall(static_cast<AsyncRuntime::Event*>(&asked_));
    return;
  }
  context_->set_initial_metadata_corked(true);  // sent with the first piece, without an event of its own
  rpc_ = Stub(channel).PrepareCall(context_.get(), method::kStreamAttention, queue);
  rpc_->StartCall(nullptr);
  {
    absl::MutexLock lock(&mutex_);
    Write();
  }
  rpc_->Read(&answer_, static_cast<AsyncRuntime::Event*>(&read_));
}

void Stream::OnAsked(bool /*ok*/) { rpc_->ReadInitialMetadata(static_cast<AsyncRuntime::Event*>(&let_in_)); }

// If the server did not admit the stream, it is over, and the read returns the error.
void Stream::OnLetIn(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    if (ok && context_->GetServerInitialMetadata().count(contract::kLetInHeader) != 0) {
      Write();
    } else {
      broken_ = true;
    }
  }
  rpc_->Read(&answer_, static_cast<AsyncRuntime::Event*>(&read_));
}

void Stream::Write() {
  if (writing_ || last_written_ || broken_ || over_ || sent_.size() >= max_in_flight_) return;
  AsyncRuntime::Event* const tag = &written_;
  // A stopping server finishes what it has begun. The rest goes to other streams, if there are any.
  std::optional<std::uint64_t> id;
  if (left_ && call_.AnyStays()) {
    last_written_ = true;
    if (!job_.StopAsking()) return call_.Fail(absl::UnavailableError("the server is stopping"));
  } else {
    id = job_.Next(last_written_);
  }
  if (!id.has_value()) {
    writing_ = true;
    rpc_->WritesDone(tag);
    return;
  }
  const absl::StatusOr<grpc::ByteBuffer> bytes = job_.Encode(*id, !last_written_, call_.loan());
  if (!bytes.ok()) return call_.Fail(bytes.status());
  sent_.insert(*id);
  writing_ = true;
  grpc::WriteOptions options;
  if (last_written_) options.set_last_message();
  rpc_->Write(*bytes, options, tag);
}

void Stream::OnWritten(bool ok) {
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) broken_ = true;  // the read returns the error
    Write();
    if (!over_ || writing_) return;
  }
  call_.StreamEnded();  // which may have deleted this
}

void Stream::Leave() {
  if (!std::exchange(left_, true)) call_.StreamLeaves();
}

bool Stream::WasSent(std::uint64_t id) {
  absl::MutexLock lock(&mutex_);
  return sent_.erase(id) != 0;
}

void Stream::OnRead(bool ok) {
  if (!ok) {
    return rpc_->Finish(&status_, static_cast<AsyncRuntime::Event*>(&finished_));
  }
  absl::StatusOr<PieceReply> answer = PieceReply::Read(answer_);
  absl::Status status = answer.status();
  if (answer.ok() && !WasSent(answer->id())) {
    status = absl::InternalError(absl::StrCat("the server answered piece ", answer->id(), ", which it was not asked"));
  }
  answer_.Clear();
  if (status.ok()) {
    {
      absl::MutexLock lock(&mutex_);
      if (answer->going_away()) Leave();
      Write();  // the server computes the next one while this one is copied
    }
    status = job_.Accept(*answer);
    if (!status.ok() && PassOn(answer->id(), status)) status = absl::OkStatus();
  }
  if (!status.ok()) call_.Fail(status);
  rpc_->Read(&answer_, static_cast<AsyncRuntime::Event*>(&read_));
}

bool Stream::PassOn(std::uint64_t id, const absl::Status& refused) {
  if (!absl::IsUnavailable(refused)) return false;
  absl::MutexLock lock(&mutex_);
  Leave();
  return call_.AnyStays() && job_.GiveBack({id});
}

void Stream::OnFinished(bool /*ok*/) {
  absl::Status status = FromGrpc(status_);
  if (!status.ok() && context_->GetServerTrailingMetadata().count(contract::kAskTrailer) != 0) call_.ToldToAsk();
  {
    absl::MutexLock lock(&mutex_);
    if (status.ok() && !sent_.empty()) {
      status = absl::InternalError("the server ended the stream before it had answered all pieces");
    }
    Leave();
    over_ = true;
    const bool asked = !std::exchange(last_written_, true);
    const bool others_go_on = !asked || job_.StopAsking();
    // Other streams may send what a stopped or lost server has not answered.
    if (absl::IsUnavailable(status) && call_.AnyStays() && others_go_on && job_.GiveBack(sent_)) {
      status = absl::OkStatus();
    }
    if (!status.ok()) call_.Fail(status);
    if (writing_) return;  // OnWritten ends the stream
  }
  call_.StreamEnded();  // which may have deleted this
}

absl::Status StreamCall::Start(const std::shared_ptr<grpc::Channel>& channel, const CallOptions& options,
                               grpc::CompletionQueue* queue) {
  if (auto s = job_.Prepare(); !s.ok()) return s;
  const std::size_t count = std::min(job_.pieces(), static_cast<std::size_t>(plan_.streams));
  for (std::size_t i = 0; i < count; ++i) {
    absl::StatusOr<std::shared_ptr<grpc::ClientContext>> context = MakeContext(options);
    if (!context.ok()) return context.status();
    streams_.push_back(
        std::make_unique<Stream>(*this, job_, static_cast<std::size_t>(plan_.pieces_in_flight), *std::move(context)));
  }
  loan_ = std::shared_ptr<const void>(nullptr, [over = over_](std::nullptr_t) { over(); });
  {
    absl::MutexLock lock(&mutex_);
    live_ = count;
    staying_ = static_cast<int>(count);
    job_.SetAsking(count);
  }
  // As soon as the last stream has started, the call may be over on another thread.
  const bool asks = plan_.ask->now();
  for (std::size_t i = 0; i < count; ++i) streams_[i]->Start(channel, queue, asks);
  return absl::OkStatus();
}

void StreamCall::StreamEnded() {
  {
    absl::MutexLock lock(&mutex_);
    if (--live_ > 0) return;
  }
  streams_.clear();  // destroys gRPC's calls and what they still hold
  const std::shared_ptr<const void> last = std::move(loan_);
}

}  // namespace

absl::StatusOr<ComputeReply> StreamNow(const std::shared_ptr<grpc::Channel>& channel, const ComputeRequest& request,
                                       const Shape& shape, const StreamPlan& plan, const CallOptions& options) {
  absl::Notification over;
  StreamCall call(request, shape, plan, [&over] { over.Notify(); });
  // A separate queue: this thread polls, so there is no thread switch.
  grpc::CompletionQueue queue;
  if (auto s = call.Start(channel, options, &queue); !s.ok()) return s;
  while (!call.streams_ended()) {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    static_cast<AsyncRuntime::Event*>(tag)->Run(ok);
  }
  over.WaitForNotification();
  return call.Take();
}

void StreamLater(const std::shared_ptr<grpc::Channel>& channel, ComputeRequest request, const Shape& shape,
                 const StreamPlan& plan, const CallOptions& options, ComputeCallback done) {
  struct Later {
    std::unique_ptr<StreamCall> call;
    ComputeCallback done;
  };
  const auto later = std::make_shared<Later>();
  later->done = std::move(done);
  // Runs on the thread that destroyed the last slice, so it must not run the caller's code.
  const auto over = [later] {
    AsyncRuntime::Get().Post([later] {
      absl::StatusOr<ComputeReply> reply = later->call->Take();
      later->call.reset();  // the call holds `later`
      later->done(std::move(reply));
    });
  };
  later->call = std::make_unique<StreamCall>(request, shape, plan, over);
  if (auto s = later->call->Start(channel, options, AsyncRuntime::Get().queue()); !s.ok()) {
    const std::unique_ptr<StreamCall> call = std::move(later->call);
    later->done(s);
  }
}

}  // namespace attnd::client
