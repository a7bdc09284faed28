#include "server/attention/too_long.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "memory/no_memory.h"
#include "server/rpc/status.h"

namespace attnd::server {

absl::Status TooLongError(const schedule::TooLong& too_long, schedule::Clock::time_point deadline,
                          absl::Duration max_queue_time) {
  return memory::CatchNoMemory([&] {
    const absl::Duration estimate = absl::Seconds(too_long.estimate);
    const auto seconds = [](absl::Duration time) { return absl::StrFormat("%.3g s", absl::ToDoubleSeconds(time)); };
    absl::Status status =
        deadline == schedule::Clock::time_point::max()
            ? FieldError(absl::StatusCode::kResourceExhausted, "queue",
                         absl::StrCat("to wait for at most ", seconds(max_queue_time), " (--max_queue_time)"),
                         absl::StrCat("calls that take ", seconds(estimate)))
            : FieldError(absl::StatusCode::kResourceExhausted, "deadline",
                         absl::StrCat("later than ", seconds(estimate),
                                      " from now, until the calls before this one and it will be done"),
                         seconds(absl::FromChrono(deadline - schedule::Clock::now())));
    SetRetryDelay(absl::Seconds(too_long.come_back), status);
    return status;
  });
}

}  // namespace attnd::server
