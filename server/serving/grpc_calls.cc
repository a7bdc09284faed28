#include "server/serving/grpc_calls.h"

#include <algorithm>
#include <cstddef>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "grpc/grpc.h"
#include "grpc/support/alloc.h"

namespace attnd::server {
namespace {

// The largest of the numbers that follow `name` in `json`.
std::int64_t LargestOf(absl::string_view name, absl::string_view json) {
  std::int64_t largest = 0;
  std::size_t at = 0;
  while ((at = json.find(name, at)) != absl::string_view::npos) {
    at += name.size();
    const std::size_t first = json.find_first_of("0123456789", at);
    if (first == absl::string_view::npos) break;
    std::size_t end = first;
    while (end < json.size() && absl::ascii_isdigit(static_cast<unsigned char>(json[end]))) ++end;
    std::int64_t value = 0;
    if (absl::SimpleAtoi(json.substr(first, end - first), &value)) {
      largest = std::max(largest, value);
    }
    at = end;
  }
  return largest;
}

struct Free {
  void operator()(char* text) const { gpr_free(text); }
};

}  // namespace

GrpcCalls CallsInChannelz(absl::string_view json) {
  return {LargestOf("\"callsStarted\"", json),
          LargestOf("\"callsSucceeded\"", json) + LargestOf("\"callsFailed\"", json)};
}

std::int64_t NotBegun(const GrpcCalls& before, const GrpcCalls& after) {
  // Calls that came after the first count and reached a service before gRPC's shutdown have been answered, so they
  // count as ended.
  return std::max<std::int64_t>(0, std::min(after.begun - before.begun, after.begun - after.ended));
}

std::int64_t NewestGrpcServer() {
  std::int64_t newest = 0;
  while (true) {
    // A page of servers, from this id on.
    const std::unique_ptr<char, Free> json(grpc_channelz_get_servers(newest + 1));
    const std::int64_t last = json == nullptr ? 0 : LargestOf("\"serverId\"", json.get());
    if (last <= newest) return newest;
    newest = last;
  }
}

GrpcCalls CountGrpcCalls(std::int64_t grpc_server) {
  const std::unique_ptr<char, Free> json(grpc_channelz_get_server(grpc_server));
  return json == nullptr ? GrpcCalls() : CallsInChannelz(json.get());
}

}  // namespace attnd::server
