// Tells clients with a gRPC retry policy when to repeat a refused call.
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

// If `status` has a retry delay (RetryDelayOf), adds two trailers to the call: grpc-retry-pushback-ms, which a retry
// policy follows (gRFC A6, "Pushback"), and kAskTrailer, which tells clients to ask before they send. Call it before
// Finish. Never throws: if there is no memory, the trailers are left out.
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
