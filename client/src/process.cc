#include "client/src/process.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "attnd/error_detail.h"

namespace attnd::client {
namespace {

pid_t FirstUser() {
  static const pid_t pid = getpid();
  return pid;
}

}  // namespace

bool Forked() { return getpid() != FirstUser(); }

absl::Status CheckProcess() {
  if (!Forked()) return absl::OkStatus();
  return ErrorWithDetail(
      absl::StatusCode::kFailedPrecondition,
      {"process", absl::StrCat("the one that made the first client (", FirstUser(), "), or exec after fork"),
       absl::StrCat(getpid(), ", forked from it")});
}

}  // namespace attnd::client
