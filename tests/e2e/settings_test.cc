// What attnd's speed rests on is in force in the binary that ships, and attnd says so; where it is not, attnd says
// that.

#include <csignal>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "memory/huge_pages.h"
#include "process.h"

namespace attnd::e2e {
namespace {

using testing::HasSubstr;

constexpr std::size_t kReadBytes = std::size_t{256} << 10;

std::map<std::string, v1::Setting> SettingsOf(const std::string& address) {
  const auto stub = v1::ServerService::NewStub(NewChannel(address));
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  const grpc::Status status = stub->GetServerInfo(&context, {}, &info);
  EXPECT_TRUE(status.ok()) << status.error_message();
  std::map<std::string, v1::Setting> settings;
  for (const v1::Setting& setting : info.settings()) settings[setting.name()] = setting;
  return settings;
}

// Sends a message of 1 MiB; the server may refuse what is in it.
void SendLargeMessage(const std::string& address) {
  v1::ComputeAttentionRequest request = ValidRequest();
  request.set_model(std::string(1 << 20, 'x'));
  v1::ComputeAttentionResponse response;
  grpc::ClientContext context;
  v1::AttentionService::NewStub(NewChannel(address))->ComputeAttention(&context, request, &response);
}

// What the process offered to recvmsg the first time, when gRPC knew nothing yet of what comes; 0 if it never did.
std::size_t FirstRead(const std::string& output) {
  const std::string before = "READ_BYTES ";
  const std::size_t found = output.find(before);
  return found == std::string::npos ? 0 : std::stoul(output.substr(found + before.size()));
}

std::size_t FirstReadOf(const Program& program, const std::vector<std::string>& arguments) {
  Process process(arguments, program);
  const std::string address = process.WaitForAddress();
  EXPECT_NE(address, "") << process.output();
  SendLargeMessage(address);
  process.Signal(SIGTERM);  // ends the plain server too
  process.Wait();
  return FirstRead(process.output());
}

TEST(SettingsTest, OfTheBinaryThatShipsAreInForce) {
  Process process({"--listen=127.0.0.1:0"});
  const std::string address = process.WaitForAddress();
  ASSERT_NE(address, "") << process.output();
  std::map<std::string, v1::Setting> settings = SettingsOf(address);
  EXPECT_EQ(settings["allocator"].state(), ATTND_TCMALLOC ? v1::SETTING_STATE_IN_FORCE : v1::SETTING_STATE_NOT_IN_FORCE)
      << settings["allocator"].detail();
  if (memory::SystemHasHugePages() && ATTND_TCMALLOC) {
    EXPECT_EQ(settings["huge_pages"].state(), v1::SETTING_STATE_IN_FORCE) << settings["huge_pages"].detail();
  }
  EXPECT_EQ(settings["kernel"].state(), v1::SETTING_STATE_IN_FORCE);
  EXPECT_EQ(settings["grpc_read_bytes"].state(), v1::SETTING_STATE_REQUESTED);
  EXPECT_EQ(settings.size(), 5U);
  process.Signal(SIGTERM);
  process.Wait();
  for (const auto& [name, setting] : settings) EXPECT_THAT(process.output(), HasSubstr("setting " + name + ": "));
}

// The same sources without the allocator: it serves, and says what is not in force.
TEST(SettingsTest, OfABuildWithoutThemAreNotInForce) {
  Process process({"--listen=127.0.0.1:0"}, {.path = ATTND_LIBC_BINARY, .environment = {}});
  const std::string address = process.WaitForAddress();
  ASSERT_NE(address, "") << process.output();
  std::map<std::string, v1::Setting> settings = SettingsOf(address);
  EXPECT_EQ(settings["allocator"].state(), v1::SETTING_STATE_NOT_IN_FORCE);
  EXPECT_EQ(settings["allocator"].detail(), "libc");
  if (memory::HugePageMode() != "always") {
    EXPECT_EQ(settings["huge_pages"].state(), v1::SETTING_STATE_NOT_IN_FORCE) << settings["huge_pages"].detail();
  }
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_THAT(process.output(), HasSubstr("warning setting allocator: not in force (libc)"));
}

TEST(SettingsTest, KernelThatIsForcedIsInForceAndTheBestIsNamed) {
  Process process({"--listen=127.0.0.1:0", "--kernel=" ATTND_PLAINEST_KERNEL});
  const std::string address = process.WaitForAddress();
  ASSERT_NE(address, "") << process.output();
  const v1::Setting kernel = SettingsOf(address)["kernel"];
  EXPECT_EQ(kernel.state(), v1::SETTING_STATE_IN_FORCE);
  EXPECT_THAT(kernel.detail(), HasSubstr(ATTND_PLAINEST_KERNEL));
}

TEST(SettingsTest, GrpcReadsLargeMessagesInLargeSteps) {
  if (ATTND_SANITIZED) GTEST_SKIP() << "a sanitizer's runtime must be loaded first";
  const std::string preload = "LD_PRELOAD=" ATTND_COUNT_READS;
  EXPECT_GE(FirstReadOf({.path = "", .environment = {preload}}, {"--listen=127.0.0.1:0"}), kReadBytes);
}

// What gRPC does by itself, seen by the same means: without the setting the test above would fail.
TEST(SettingsTest, WithoutTheSettingGrpcReadsInSmallerSteps) {
  if (ATTND_SANITIZED) GTEST_SKIP() << "a sanitizer's runtime must be loaded first";
  const std::string preload = "LD_PRELOAD=" ATTND_COUNT_READS;
  const std::size_t first = FirstReadOf({.path = ATTND_PLAIN_SERVER, .environment = {preload}}, {});
  EXPECT_GT(first, 0U);
  EXPECT_LT(first, kReadBytes);
}

}  // namespace
}  // namespace attnd::e2e
