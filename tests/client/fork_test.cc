// A child that was forked after a call is refused at once, and the parent goes on.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "attnd/client.h"
#include "fake_server.h"
#include "test_request.h"

namespace attnd::client {
namespace {

constexpr auto kRefused = absl::StatusCode::kFailedPrecondition;

// What the child does: the number of what went wrong. It must not return, and its own clients are destroyed.
int Child(std::unique_ptr<Client> client, const std::string& target, const ComputeRequest& request) {
  if (client->Compute(request).status().code() != kRefused) return 1;
  auto future = client->ComputeFuture(request);
  if (future.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return 2;
  if (future.get().status().code() != kRefused) return 3;
  if (client->GetServerInfo().status().code() != kRefused) return 4;
  if (client->UnloadModel("m").code() != kRefused) return 5;
  if (client->AllocateBuffer(1).status().code() != kRefused) return 6;
  if (Client::Create(target).status().code() != kRefused) return 7;
  client.reset();
  return 0;
}

TEST(Fork, TheChildIsRefusedAndTheParentGoesOn) {
  FakeAttention service;
  FakeServer server({&service});
  ClientOptions options;
  options.retry.enabled = false;  // the parent's calls need no repeat
  auto client = std::make_unique<Client>(*Client::Create(server.target(), options));
  TestRequest t;
  ASSERT_TRUE(client->Compute(t.request).ok());
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(Child(std::move(client), server.target(), t.request));
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 0);
  for (int i = 0; i < 3; ++i) {
    const auto reply = client->Compute(t.request);
    EXPECT_TRUE(reply.ok()) << reply.status();
  }
}

}  // namespace
}  // namespace attnd::client
