#include "server/probes/reflection_service.h"

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/arena.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "memory/no_memory.h"
#include "server/probes/describe.h"
#include "server/probes/guarded.h"

namespace attnd::server {
namespace {

using grpc::StatusCode;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

// Reads and writes alternate, so a caller that does not read its answers costs the memory of one answer.
class Stream final : public ReflectionReactor, public OpenStream {
 public:
  Stream(const std::vector<std::string>& services, OpenStreams& streams, grpc::CallbackServerContext& context)
      : services_(services), streams_(streams), context_(context) {
    streams_.Add(this);
    StartRead(&incoming_);
  }

  void OnReadDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    if (finished_) return;
    if (!ok) return FinishWith(grpc::Status::OK);
    if (grpc::Status status = Guarded([this] { return Answer(); }); !status.ok()) return FinishWith(std::move(status));
    writing_ = true;
    StartWrite(&outgoing_);
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    outgoing_.Clear();
    if (ending_ || !ok) return FinishWith(Stopping());
    StartRead(&incoming_);
  }

  void OnCancel() override { End(); }

  void End() override {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    if (!writing_ && !finished_) FinishWith(Stopping());
  }

  void Cancel() override { context_.TryCancel(); }

  void OnDone() override {
    streams_.Remove(this);
    delete this;
  }

 private:
  // Makes the answer to the message that was read.
  grpc::Status Answer() {
    if (incoming_.Length() > kMaxReflectionRequestBytes) {
      return grpc::Status(
          StatusCode::RESOURCE_EXHAUSTED,
          absl::StrCat("request: expected at most ", kMaxReflectionRequestBytes, " bytes, got ", incoming_.Length()));
    }
    google::protobuf::Arena arena;
    auto* const request = google::protobuf::Arena::CreateMessage<ServerReflectionRequest>(&arena);
    if (!grpc::SerializationTraits<ServerReflectionRequest>::Deserialize(&incoming_, request).ok()) {
      return grpc::Status(StatusCode::INVALID_ARGUMENT,
                          "request: expected a ServerReflectionRequest, got malformed protobuf");
    }
    auto* const response = google::protobuf::Arena::CreateMessage<ServerReflectionResponse>(&arena);
    Describe(*request, services_, *google::protobuf::DescriptorPool::generated_pool(), *response);
    bool own = false;
    return grpc::SerializationTraits<ServerReflectionResponse>::Serialize(*response, &outgoing_, &own);
  }

  static grpc::Status Stopping() {
    return Guarded([] { return grpc::Status(StatusCode::UNAVAILABLE, "the server is stopping"); });
  }

  void FinishWith(grpc::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    finished_ = true;
    Finish(std::move(status));
  }

  const std::vector<std::string>& services_;
  OpenStreams& streams_;
  grpc::CallbackServerContext& context_;
  grpc::ByteBuffer incoming_;  // used by the read that is under way
  grpc::ByteBuffer outgoing_;  // used by the write that is under way
  absl::Mutex mutex_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

ReflectionReactor* NewReflectionStream(const std::vector<std::string>& services, OpenStreams& streams,
                                       grpc::CallbackServerContext& context) {
  Stream* stream = nullptr;
  const absl::Status made = memory::CatchNoMemoryIn([&] { stream = new Stream(services, streams, context); });
  return made.ok() ? stream : nullptr;
}

}  // namespace attnd::server
