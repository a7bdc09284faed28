// Addresses are tested in net/address_test.cc, ranges of limits in limits_test.cc.

#include "server/config/options.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>

#include "absl/time/time.h"
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

// The lowest and highest value of each option that has one, and what is next to them.
TEST(CheckOptionsBoundsTest, LimitsAndTheValuesBesideThem) {
  constexpr absl::Duration kForever = absl::InfiniteDuration();
  constexpr absl::Duration kMillisecond = absl::Milliseconds(1);
  constexpr absl::Duration kTick = absl::Nanoseconds(1);
  const struct {
    const char* flag;
    absl::Duration Options::*value;
    absl::Duration lowest, highest;
  } kDurations[] = {
      {"--drain_seconds", &Options::drain, absl::ZeroDuration(), absl::Hours(24 * 365 * 1000)},
      {"--keepalive_time", &Options::keepalive_time, kMillisecond, kForever},
      {"--keepalive_timeout", &Options::keepalive_timeout, kMillisecond, kForever},
      {"--min_ping_interval", &Options::min_ping_interval, kMillisecond, kForever},
      {"--handshake_time", &Options::handshake_time, kMillisecond, kForever},
      {"--max_connection_idle", &Options::max_connection_idle, kMillisecond, kForever},
      {"--max_connection_age", &Options::max_connection_age, kMillisecond, kForever},
      {"--max_connection_age_grace", &Options::max_connection_age_grace, kMillisecond, kForever},
      {"--stall_seconds", &Options::stall, absl::ZeroDuration(), kForever},
      {"--max_queue_time", &Options::max_queue_time, kTick / 4, kForever},
      {"--session_lease", &Options::session_lease, kMillisecond, kForever},
      {"--session_idle", &Options::session_idle, kMillisecond, kForever},
      {"--session_life", &Options::session_life, kMillisecond, kForever},
      {"--session_grace", &Options::session_grace, absl::ZeroDuration(), absl::Hours(24)},
  };
  const auto field_of = [](const Options& options) {
    const absl::Status status = CheckOptions(options);
    return status.ok() ? "" : DetailOf(status)->field();
  };
  for (const auto& c : kDurations) {
    const auto check = [&](absl::Duration value) {
      Options options;
      options.*c.value = value;
      return field_of(options);
    };
    EXPECT_EQ(check(c.lowest), "") << c.flag;
    EXPECT_EQ(check(c.lowest - kTick), c.flag) << "below";
    EXPECT_EQ(check(-kForever), c.flag) << "far below";
    if (c.highest == kForever) {
      EXPECT_EQ(check(kForever), "") << c.flag;
    } else if (c.highest < absl::Hours(1000)) {
      EXPECT_EQ(check(c.highest), "") << c.flag;
      EXPECT_EQ(check(c.highest + kTick), c.flag) << "above";
    } else {
      EXPECT_EQ(check(c.highest), "") << c.flag;
      EXPECT_EQ(check(kForever), c.flag) << "above";
    }
  }
  const struct {
    const char* flag;
    std::int64_t Options::*value;
    std::int64_t lowest;
  } kCounts[] = {{"--min_rate", &Options::min_rate, 1},
                 {"--max_sessions", &Options::max_sessions, 0},
                 {"--max_peer_sessions", &Options::max_peer_sessions, 1}};
  for (const auto& c : kCounts) {
    const auto check = [&](std::int64_t value) {
      Options options;
      options.*c.value = value;
      return field_of(options);
    };
    EXPECT_EQ(check(c.lowest), "") << c.flag;
    EXPECT_EQ(check(std::numeric_limits<std::int64_t>::max()), "") << c.flag;
    EXPECT_EQ(check(c.lowest - 1), c.flag);
    EXPECT_EQ(check(std::numeric_limits<std::int64_t>::min()), c.flag);
  }
}

TEST(OptionsTest, TrustedProxiesAreAllOrNone) {
  Options options;
  EXPECT_TRUE(TrustedProxies(options).empty());
  options.trusted_proxies = {"10.0.0.0/8", "fd00::1"};
  EXPECT_EQ(CheckOptions(options), absl::OkStatus());
  ASSERT_EQ(TrustedProxies(options).size(), 2U);
  EXPECT_TRUE(TrustedProxies(options)[0].Contains("10.1.2.3"));
  EXPECT_TRUE(TrustedProxies(options)[1].Contains("fd00::1"));
  for (const char* bad : {"", "proxy.example", "10.0.0.0/33"}) {
    options.trusted_proxies = {"10.0.0.0/8", bad};
    ASSERT_TRUE(DetailOf(CheckOptions(options)).has_value()) << bad;
    EXPECT_EQ(DetailOf(CheckOptions(options))->field(), "--trusted_proxies");
    EXPECT_EQ(DetailOf(CheckOptions(options))->got(), bad);
  }
}

TEST(OptionsTest, SharedMemoryAndLocalCallsNeedAUnixSocket) {
  for (const bool has_unix : {true, false}) {
    for (const bool shared : {true, false}) {
      for (const bool local : {true, false}) {
        Options options;
        options.listen = {"127.0.0.1:1"};
        if (has_unix) options.listen.emplace_back("unix:/x");
        options.shared_memory = shared;
        options.local_calls = local;
        EXPECT_EQ(SharesMemory(options), has_unix && shared);
        EXPECT_EQ(TakesLocalCalls(options), has_unix && local);
      }
    }
  }
}

}  // namespace
}  // namespace attnd::server
