// When a refused call may come back, for callers whose gRPC repeats calls by itself.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "contract/asking.h"
#include "grpcpp/server_context.h"
#include "memory/no_memory.h"
#include "server/rpc/status.h"

namespace attnd::server {

// Adds the trailer grpc-retry-pushback-ms to a call that ends with an error that says when to come back (RetryDelayOf):
// a retry policy goes by it (gRFC A6, "Pushback"); and the one that tells clients to ask before they send. Before
// Finish. Never throws: without memory there is none.
inline void AddPushback(grpc::CallbackServerContext& context, const absl::Status& status) {
  if (status.ok()) return;
  static_cast<void>(memory::CatchNoMemoryIn([&] {
    const std::optional<absl::Duration> delay = RetryDelayOf(status);
    if (!delay.has_value()) return;
    context.AddTrailingMetadata(contract::kAskTrailer, "1");
    context.AddTrailingMetadata("grpc-retry-pushback-ms",
                                absl::StrCat(absl::ToInt64Milliseconds(absl::Ceil(*delay, absl::Milliseconds(1)))));
  }));
}

}  // namespace attnd::server
