#include "server/probes/guarded.h"

#include "memory/no_memory.h"

namespace attnd::server {

grpc::Status Guarded(absl::FunctionRef<grpc::Status()> answer) {
  grpc::Status status;
  if (memory::CatchNoMemoryIn([&] { status = answer(); }).ok()) return status;
  // Short enough to be stored in the string object itself.
  return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "out of memory");
}

}  // namespace attnd::server
