// Addresses are tested in net/address_test.cc, ranges of limits in limits_test.cc.

#include "server/config/options.h"

#include <functional>
#include <limits>
#include <optional>
#include <string>

#include "gtest/gtest.h"
#include "server/rpc/status.h"

namespace attnd::server {
namespace {

struct Case {
  const char* name;
  std::function<void(Options&)> change;
  const char* field = "";  // that is refused; empty: the options are good
};

const Case kCases[] = {
    {"defaults", [](Options&) {}},
    {"no_address", [](Options& o) { o.listen.clear(); }, "--listen"},
    {"one_bad_address", [](Options& o) { o.listen.emplace_back("nowhere"); }, "--listen"},
    {"empty_address", [](Options& o) { o.listen.emplace_back(""); }, "--listen"},
    {"several_addresses",
     [](Options& o) {
       o.listen = {"a:1", "[::1]:0", "unix:/x", "unix:///y"};
     }},
    {"strict_models",
     [](Options& o) {
       o.strict_models = true;
       o.model_root = "/models";
     }},
    {"strict_models_of_nothing", [](Options& o) { o.strict_models = true; }, "--strict_models"},
    {"default_threads", [](Options& o) { o.threads = 0; }},
    {"one_thread", [](Options& o) { o.threads = 1; }},
    {"most_threads", [](Options& o) { o.threads = 4096; }},
    {"negative_threads", [](Options& o) { o.threads = -1; }, "--threads"},
    {"fewest_threads", [](Options& o) { o.threads = std::numeric_limits<int>::min(); }, "--threads"},
    {"too_many_threads", [](Options& o) { o.threads = 4097; }, "--threads"},
    {"no_drain", [](Options& o) { o.drain = absl::ZeroDuration(); }},
    {"long_drain", [](Options& o) { o.drain = absl::Hours(24 * 365); }},
    {"negative_drain", [](Options& o) { o.drain = absl::Nanoseconds(-1); }, "--drain_seconds"},
    {"endless_drain", [](Options& o) { o.drain = absl::InfiniteDuration(); }, "--drain_seconds"},
    {"drain_endlessly_ago", [](Options& o) { o.drain = -absl::InfiniteDuration(); }, "--drain_seconds"},
    {"short_keepalive", [](Options& o) { o.keepalive_time = absl::Milliseconds(1); }},
    {"no_keepalive", [](Options& o) { o.keepalive_time = absl::InfiniteDuration(); }},
    {"keepalive_at_once", [](Options& o) { o.keepalive_time = absl::ZeroDuration(); }, "--keepalive_time"},
    {"no_patience", [](Options& o) { o.keepalive_timeout = absl::Microseconds(999); }, "--keepalive_timeout"},
    {"any_pings", [](Options& o) { o.min_ping_interval = absl::ZeroDuration(); }, "--min_ping_interval"},
    {"no_age", [](Options& o) { o.max_connection_age = absl::ZeroDuration(); }, "--max_connection_age"},
    {"no_grace", [](Options& o) { o.max_connection_age_grace = -absl::Seconds(1); }, "--max_connection_age_grace"},
    {"no_idle_time", [](Options& o) { o.max_connection_idle = absl::ZeroDuration(); }, "--max_connection_idle"},
    {"endless_idle_time", [](Options& o) { o.max_connection_idle = absl::InfiniteDuration(); }},
    {"no_handshake", [](Options& o) { o.handshake_time = absl::ZeroDuration(); }, "--handshake_time"},
    {"endless_queue", [](Options& o) { o.max_queue_time = absl::InfiniteDuration(); }},
    {"no_queue", [](Options& o) { o.max_queue_time = absl::ZeroDuration(); }, "--max_queue_time"},
    {"any_stall", [](Options& o) { o.stall = absl::ZeroDuration(); }},
    {"endless_stall", [](Options& o) { o.stall = absl::InfiniteDuration(); }},
    {"negative_stall", [](Options& o) { o.stall = -absl::Seconds(1); }, "--stall_seconds"},
    {"slowest_rate", [](Options& o) { o.min_rate = 1; }},
    {"no_rate", [](Options& o) { o.min_rate = 0; }, "--min_rate"},
    {"trace", [](Options& o) { o.log_level = "trace"; }},
    {"debug", [](Options& o) { o.log_level = "debug"; }},
    {"info", [](Options& o) { o.log_level = "info"; }},
    {"warn", [](Options& o) { o.log_level = "warn"; }},
    {"error", [](Options& o) { o.log_level = "error"; }},
    {"off", [](Options& o) { o.log_level = "off"; }},
    {"no_level", [](Options& o) { o.log_level = ""; }, "--log_level"},
    {"upper_case_level", [](Options& o) { o.log_level = "Info"; }, "--log_level"},
    {"level_of_spdlog", [](Options& o) { o.log_level = "critical"; }, "--log_level"},
    {"memory_without_unix", [](Options& o) { o.shared_memory = true; }},
    {"calls_without_unix", [](Options& o) { o.local_calls = true; }},
    {"a_unix_socket_alone",
     [](Options& o) {
       o.shared_memory = o.local_calls = false;
       o.listen = {"unix:/x"};
     }},
    {"a_limit", [](Options& o) { o.limits.max_models = 0; }, "--max_models"},
    // Whether these exist is found when the server starts.
    {"any_kernel", [](Options& o) { o.kernel = "abacus"; }},
    {"any_model_root", [](Options& o) { o.model_root = "/no/such/folder"; }},
};

class CheckOptionsTest : public testing::TestWithParam<Case> {};

TEST_P(CheckOptionsTest, RefusesByFlag) {
  Options options;
  GetParam().change(options);
  const absl::Status status = CheckOptions(options);
  const std::string field = GetParam().field;
  if (field.empty()) {
    EXPECT_EQ(status, absl::OkStatus());
    return;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  ASSERT_TRUE(detail.has_value()) << status;
  EXPECT_EQ(detail->field(), field);
  EXPECT_NE(detail->expected(), "");
}

INSTANTIATE_TEST_SUITE_P(All, CheckOptionsTest, testing::ValuesIn(kCases),
                         [](const testing::TestParamInfo<Case>& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace attnd::server
