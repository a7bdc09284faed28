#include "server/session/service.h"

#include "absl/status/status.h"
#include "memory/no_memory.h"
#include "server/rpc/finish_now.h"
#include "server/rpc/status.h"

namespace attnd::server {

grpc::ServerUnaryReactor* SessionService::ListSessions(grpc::CallbackServerContext* context,
                                                       const v1::ListSessionsRequest*,
                                                       v1::ListSessionsResponse* response) {
  const absl::Status listed = memory::CatchNoMemoryIn([&] { *response = table_.List(); });
  return FinishNow(*context, ToGrpc(listed));
}

grpc::ServerUnaryReactor* SessionService::EvictSession(grpc::CallbackServerContext* context,
                                                       const v1::EvictSessionRequest* request,
                                                       v1::EvictSessionResponse*) {
  return FinishNow(*context, ToGrpc(memory::CatchNoMemory([&] { return table_.Evict(request->id()); })));
}

}  // namespace attnd::server
