#include "client/src/context.h"

#include <grpc/grpc.h>
#include <grpcpp/support/slice.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "attnd/error_detail.h"

namespace attnd::client {
namespace {

// gRPC aborts the process on invalid metadata.
absl::Status CheckMetadata(const std::pair<std::string, std::string>& entry) {
  const grpc::Slice key_slice(entry.first), value_slice(entry.second);
  const grpc_slice key = key_slice.c_slice(), value = value_slice.c_slice();
  const bool key_ok = grpc_header_key_is_legal(key) != 0 && entry.first[0] != ':';
  const bool value_ok = grpc_is_binary_header(key) != 0 || grpc_header_nonbin_value_is_legal(value) != 0;
  grpc_slice_unref(key);
  grpc_slice_unref(value);
  if (key_ok && value_ok) return absl::OkStatus();
  return ErrorWithDetail(
      absl::StatusCode::kInvalidArgument,
      {"metadata", "keys of [a-z0-9_.-], and values of printable ASCII unless the key ends in -bin",
       absl::StrCat("\"", absl::CHexEscape(entry.first), "\": \"", absl::CHexEscape(entry.second), "\"")});
}

// Removes the call from its Cancellation when the last user of the context releases it.
struct Registered {
  grpc::ClientContext context;
  std::shared_ptr<Cancellation> cancellation;
  std::int64_t id = -1;
  ~Registered() {
    if (cancellation != nullptr) cancellation->Remove(id);
  }
};

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ClientContext>> MakeContext(const CallOptions& options) {
  auto call = std::make_shared<Registered>();
  std::shared_ptr<grpc::ClientContext> context(call, &call->context);
  if (options.deadline != absl::InfiniteFuture()) context->set_deadline(absl::ToChronoTime(options.deadline));
  context->set_wait_for_ready(options.wait_for_ready);
  for (const auto& entry : options.metadata) {
    if (auto s = CheckMetadata(entry); !s.ok()) return s;
    context->AddMetadata(entry.first, entry.second);
  }
  if (options.cancellation != nullptr) {
    call->cancellation = options.cancellation;
    const std::weak_ptr<Registered> weak = call;
    call->id = options.cancellation->Add([weak] {
      if (const auto alive = weak.lock()) alive->context.TryCancel();
    });
  }
  return context;
}

}  // namespace attnd::client
