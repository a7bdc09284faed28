// A plugin that links the static client: the library has no symbol in common with the program that loads it.
#include <cstdio>
#include <string>
#include <vector>

#include "attnd/client.h"

namespace {

bool Ok(const char* call, const absl::Status& status) {
  if (!status.ok()) std::fprintf(stderr, "%s: %s\n", call, status.ToString().c_str());
  return status.ok();
}

}  // namespace

// Calls the server at `target`: attention both ways, and messages. 0 if all went well.
extern "C" __attribute__((visibility("default"))) int CallServer(const char* target) {
  absl::StatusOr<attnd::Client> client = attnd::Client::Create(target);
  if (!Ok("Create", client.status())) return 1;
  const std::vector<float> tensor(64, 1);
  attnd::ComputeRequest request;
  request.model = "book";
  request.q = request.k = request.v = {tensor.data(), attnd::DType::kFp32, {1, 1, 16, 4}};
  if (!Ok("Compute", client->Compute(request).status())) return 1;
  if (!Ok("ComputeFuture", client->ComputeFuture(request).get().status())) return 1;
  if (!Ok("ListModels", client->ListModels().status())) return 1;
  // The server's detail crosses as well.
  request.model = "refused";
  const absl::Status refused = client->Compute(request).status();
  const auto detail = attnd::GetErrorDetail(refused);
  if (detail.has_value() && detail->field == "model") return 0;
  std::fprintf(stderr, "refused: %s\n", refused.ToString().c_str());
  return 1;
}
