#include "server/app/log.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/type.pb.h"
#include "gtest/gtest.h"
#include "platform/platform.h"
#include "spdlog/spdlog.h"

#if ATTND_ABSL_LOG
#include "absl/log/log.h"
#else
#include "grpc/support/log.h"
#endif

namespace attnd::server {
namespace {

using testing::HasSubstr;
using testing::Not;

const char* const kLevels[] = {"trace", "debug", "info", "warn", "error", "off"};

// What stands on standard error after `act`, at this level.
std::string Logged(const std::string& level, const std::function<void()>& act) {
  testing::internal::CaptureStderr();
  SetUpLog(level);
  act();
  return testing::internal::GetCapturedStderr();
}

std::size_t LinesOf(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

TEST(LogTest, EachLevelShowsItsOwnLinesAndGraverOnes) {
  for (std::size_t level = 0; level < std::size(kLevels); ++level) {
    const std::string lines = Logged(kLevels[level], [] {
      spdlog::trace("line of trace");
      spdlog::debug("line of debug");
      spdlog::info("line of info");
      spdlog::warn("line of warn");
      spdlog::error("line of error");
    });
    for (std::size_t line = 0; line + 1 < std::size(kLevels); ++line) {
      const std::string text = std::string("line of ") + kLevels[line] + "\n";
      if (line >= level) {
        EXPECT_THAT(lines, HasSubstr(text)) << kLevels[level];
      } else {
        EXPECT_THAT(lines, Not(HasSubstr(text))) << kLevels[level];
      }
    }
    EXPECT_EQ(LinesOf(lines), std::size(kLevels) - 1 - level) << lines;
  }
}

TEST(LogTest, ALineHasTimeLevelAndText) {
  const std::string line = Logged("info", [] { spdlog::warn("what happened"); });
  EXPECT_THAT(line, testing::MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}"
                                          "[+-][0-9]{2}:[0-9]{2} warning what happened\n"));
}

// gRPC's lines, as it writes them.
#if ATTND_ABSL_LOG
using GrpcLogTest = testing::Test;
void GrpcError(const std::string& text) { LOG(ERROR) << text; }
void GrpcInfo(const std::string& text) { LOG(INFO) << text; }
#else
class GrpcLogTest : public testing::Test {
 protected:
  GrpcLogTest() { gpr_set_log_verbosity(GPR_LOG_SEVERITY_DEBUG); }
  ~GrpcLogTest() override { gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR); }
};
void GrpcError(const std::string& text) { gpr_log(GPR_ERROR, "%s", text.c_str()); }
void GrpcInfo(const std::string& text) { gpr_log(GPR_INFO, "%s", text.c_str()); }
#endif

TEST_F(GrpcLogTest, ErrorsAreWarningsOfOurs) {
  const auto error = [] { GrpcError("connection 7 broke"); };
  for (const char* level : {"trace", "debug", "info", "warn"}) {
    const std::string line = Logged(level, error);
    EXPECT_THAT(line, HasSubstr(" warning grpc: connection 7 broke\n")) << level;
    EXPECT_EQ(LinesOf(line), 1U) << line;
  }
  EXPECT_EQ(Logged("error", error), "");
  EXPECT_EQ(Logged("off", error), "");
}

TEST_F(GrpcLogTest, OtherLinesAreForDebugging) {
  const auto others = [] {
    GrpcInfo("told");
    GrpcInfo("traced");
  };
  for (const char* level : {"trace", "debug"}) {
    const std::string lines = Logged(level, others);
    EXPECT_THAT(lines, HasSubstr(" debug grpc: told\n"));
    EXPECT_THAT(lines, HasSubstr(" debug grpc: traced\n"));
  }
  EXPECT_EQ(Logged("info", others), "");
}

TEST_F(GrpcLogTest, PercentSignsAndBracesOfALineAreItsOwn) {
  EXPECT_THAT(Logged("warn", [] { GrpcError("{} %s {0}"); }), HasSubstr("grpc: {} %s {0}\n"));
}

TEST(LogTest, ProtobufsComplaintsAreForDebugging) {
  // A string field that is no UTF-8.
  const auto complain = [] { EXPECT_FALSE(google::protobuf::Type().ParseFromString("\x0a\x02\xff\xfe")); };
  EXPECT_THAT(Logged("debug", complain), HasSubstr(" debug protobuf: "));
  EXPECT_EQ(Logged("info", complain), "") << "and nowhere else";
}

}  // namespace
}  // namespace attnd::server
