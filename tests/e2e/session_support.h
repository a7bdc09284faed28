// Sessions as a caller has them, by either door.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "attnd/v1/local.pb.h"
#include "attnd/v1/session.grpc.pb.h"
#include "e2e_support.h"
#include "local_caller.h"
#include "raw_region.h"
#include "temp_folder.h"

namespace attnd::e2e {

enum class Door : std::uint8_t { kGrpc, kLocal };

// A server with a door of each kind, or of one alone.
class SessionServer : public TestServer {
 public:
  explicit SessionServer(server::Options options = TestOptions())
      : SessionServer(std::make_shared<test::TempFolder>(), std::move(options)) {}

  std::string local_path() const { return folder_->path() + "/s.shm"; }

 private:
  SessionServer(const std::shared_ptr<test::TempFolder>& folder, server::Options options);
  const std::shared_ptr<test::TempFolder> folder_;
};

// How a session ended.
struct SessionEnd {
  bool ok() const { return code == grpc::StatusCode::OK; }
  grpc::StatusCode code;
  std::string message;
  v1::ErrorDetail detail;
};

// One session, or a stream that may become one.
class Stream {
 public:
  Stream(const SessionServer& server, Door door, const std::shared_ptr<grpc::Channel>& channel = nullptr);
  Stream(const SessionServer& server, Door door, const v1::SessionOpen& open,
         const std::shared_ptr<grpc::Channel>& channel = nullptr);
  // Goes on with the session of `lost`, as soon as that has ended.
  static std::unique_ptr<Stream> Resumed(const SessionServer& server, Door door, const Stream& lost);
  ~Stream();

  // As the server said when it was opened.
  const v1::SessionOpened& facts() const { return facts_; }
  bool opened() const { return opened_; }
  const v1::SessionReply& reply() const { return reply_; }
  // By the local door, tensors that find no room in the message, and those of every third step unless `sent`, are put
  // into shared memory, and so is the output; Read takes it from there.
  bool Write(const v1::SessionRequest& request, bool sent = false);
  bool Read();
  // The answer to a step, which is kept in reply().
  const v1::SessionStepResult& Ask(const v1::SessionRequest& request, bool sent = false);
  // What ends a session, and nothing more.
  void SayClose();
  void EndWrites() { stream_->WritesDone(); }
  SessionEnd HalfClose();
  // The end, once it comes; the same again.
  SessionEnd Finish();
  void Cancel();

 private:
  struct Shared {
    v1::SharedTensor output, log_sum_exp;
    std::size_t output_bytes = 0, log_sum_exp_bytes = 0;
  };
  // Sends what is to open it.
  void Open(const v1::SessionRequest& request);
  v1::SessionRequest Share(const v1::SessionRequest& request, bool unless_it_fits);

  grpc::ClientContext context_;
  std::unique_ptr<v1::SessionService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::SessionRequest, v1::SessionReply>> stream_;  // null by the local door
  std::unique_ptr<test::LocalCaller> caller_;
  std::unique_ptr<test::RawRegion> region_;
  std::size_t region_bytes_ = 0;
  std::optional<Shared> shared_;  // of the step that was written last
  std::optional<SessionEnd> told_;
  v1::SessionOpen open_;
  v1::SessionOpened facts_;
  int steps_ = 0;
  v1::SessionReply reply_;
  bool opened_ = false;
  bool ended_ = false;
};

v1::SessionLayer Layer(v1::SessionLayerKind kind, std::int64_t head_dim, std::int64_t value_head_dim,
                       std::int64_t kv_heads = 0);

// Two self layers, and a cross layer if there are sources.
v1::SessionOpen OpenOf(std::int64_t rows, std::int64_t sources, v1::Dtype dtype);

// One step of layer 0: tokens for each row, and their queries.
v1::SessionRequest TokenStep(std::uint64_t number, std::int64_t rows, std::int64_t tokens = 1);

}  // namespace attnd::e2e
