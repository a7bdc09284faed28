// A server in this process that answers with the plain formula and keeps what it was asked, so that tests see a call as
// protobuf's own parser does.
#pragma once

#include <grpcpp/server.h>

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "attnd/v1/attention.grpc.pb.h"

namespace attnd::client {

// Plain attention for FP32 without bias, [batch, heads, sequence, dim]; the log-sum-exp beside it.
void PlainAttention(const attnd::v1::ComputeAttentionRequest& request, std::string& output, std::string& log_sum_exp);

class FakeAttention : public attnd::v1::AttentionService::Service {
 public:
  using Pieces = grpc::ServerReaderWriter<attnd::v1::StreamAttentionResponse, attnd::v1::StreamAttentionRequest>;
  using Handler = std::function<grpc::Status(grpc::ServerContext*, const attnd::v1::ComputeAttentionRequest&,
                                             attnd::v1::ComputeAttentionResponse&)>;
  // A handler that may be assigned while the server runs: what the assigning thread did before is done for the handler.
  class HandlerSlot {
   public:
    HandlerSlot& operator=(Handler handler) {
      absl::MutexLock lock(&mutex_);
      handler_ = std::move(handler);
      return *this;
    }
    Handler get() const {
      absl::MutexLock lock(&mutex_);
      return handler_;
    }

   private:
    mutable absl::Mutex mutex_;
    Handler handler_ ABSL_GUARDED_BY(mutex_);
  };

  // What to answer; by default PlainAttention.
  HandlerSlot handler;

  // Pieces to read before the first is answered; they are then answered last first. 1: each at once.
  std::size_t pieces_at_once = 1;
  // How many streams there were, and pieces in all of them.
  std::atomic<int> streams{0}, pieces{0};
  // Of the pieces, those without "more".
  std::atomic<int> last_pieces{0};
  // Whether answers to pieces say that the server stops.
  std::atomic<bool> going_away{false};
  // Whether streams are refused, with the word to ask first; and how many asked.
  std::atomic<bool> busy{false};
  std::atomic<int> asked{0};
  // Pieces of a stream that are answered before it breaks (UNAVAILABLE); negative: it does not.
  std::atomic<int> breaks_after{-1};

  grpc::Status ComputeAttention(grpc::ServerContext* context, const attnd::v1::ComputeAttentionRequest* request,
                                attnd::v1::ComputeAttentionResponse* response) override;

  // Each piece as a ComputeAttention call; its error is the piece's.
  grpc::Status StreamAttention(grpc::ServerContext* context, Pieces* stream) override;
};

// Serves `services` until destroyed, at a loopback port of its own and, if given, at another address too.
class FakeServer {
 public:
  explicit FakeServer(const std::vector<grpc::Service*>& services, const std::string& address = "");
  ~FakeServer();
  std::string target() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace attnd::client
