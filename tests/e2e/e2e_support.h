// A real server in this process and raw gRPC calls to it, for the end to end tests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "attnd/v1/attention.grpc.pb.h"
#include "attnd/v1/model.grpc.pb.h"
#include "attnd/v1/server.grpc.pb.h"
#include "grpc_calls.h"
#include "grpcpp/grpcpp.h"
#include "server/serving/server.h"

namespace attnd::e2e {

// The model that TestServer holds: a causal "decoder" and a bidirectional "encoder" table of kHeads heads.
inline constexpr char kModel[] = "test";
inline constexpr std::int64_t kHeads = 2;

// Options for a server on any free port of the loopback.
server::Options TestOptions();

// A server with kModel, and stubs on a channel of its own without message limits. Fails the test if it cannot start.
class TestServer {
 public:
  explicit TestServer(server::Options options = TestOptions());

  server::Server& server() { return *server_; }
  const std::string& address() const { return server_->addresses()[0]; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  grpc::Status Compute(const v1::ComputeAttentionRequest& request, v1::ComputeAttentionResponse* response);
  v1::AttentionService::Stub& attention() { return *attention_; }
  v1::ModelService::Stub& models() { return *models_; }
  v1::ServerService::Stub& info() { return *info_; }

 private:
  std::unique_ptr<server::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::AttentionService::Stub> attention_;
  std::unique_ptr<v1::ModelService::Stub> models_;
  std::unique_ptr<v1::ServerService::Stub> info_;
};

using test::NewChannel;

// Calls any method with the bytes of `slices` as its message; `reply` gets the bytes of the answer's.
grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     const std::vector<grpc::Slice>& slices, std::string* reply);

// What grpc.health.v1 says of a service.
enum class Health { kUnknown, kServing, kNotServing, kFailed };
Health HealthOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& service);

struct Shape {
  std::int64_t batch = 2;
  std::int64_t query_length = 5;
  std::int64_t key_length = 7;
  std::int64_t head_dim = 4;
};

// A valid FP32 request to kModel with pseudo-random tensors.
v1::ComputeAttentionRequest ValidRequest(const Shape& shape = {}, unsigned seed = 1);

// `request` as a piece of a stream.
v1::StreamAttentionRequest PieceOf(std::uint64_t id, const v1::ComputeAttentionRequest& request);

// `count` pseudo-random FP32 values of about unit size, as bytes.
std::string RandomFloats(std::int64_t count, unsigned seed);

// The ErrorDetail in a status's details; empty fields if there is none.
v1::ErrorDetail DetailOf(const grpc::Status& status);

// Expects the output (and the log-sum-exp, if there is one) to be what kernel::Reference computes from `request`, whose
// dtypes are FP32 and whose table is kModel's decoder, up to the rounding that FP32 arithmetic allows.
void ExpectMatchesReference(const v1::ComputeAttentionRequest& request, const v1::ComputeAttentionResponse& response);

}  // namespace attnd::e2e
