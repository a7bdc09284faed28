// `attnctl sessions plan` against a server: what it says a session reserves, and how many fit, is what happens.
#include "client/attnctl/session_plan.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attnd/client.h"
#include "client/attnctl/line.h"
#include "e2e_support.h"
#include "gtest/gtest.h"

namespace attnd::e2e {
namespace {

// A session without a bias, all of whose layers have one shape.
struct Shape {
  std::int64_t rows, sources, self_layers, cross_layers, heads, kv_heads, head_dim, value_head_dim, max_tokens,
      max_source_tokens;
  DType dtype;
};

SessionRequest RequestOf(const Shape& shape) {
  SessionRequest request;
  request.rows = shape.rows;
  request.sources = shape.sources;
  request.dtype = shape.dtype;
  request.max_tokens = shape.max_tokens;
  request.max_source_tokens = shape.max_source_tokens;
  if (shape.sources > 0) request.row_sources.assign(static_cast<std::size_t>(shape.rows), 0);
  for (std::int64_t i = 0; i < shape.self_layers + shape.cross_layers; ++i) {
    SessionLayer layer;
    layer.kind = i < shape.self_layers ? SessionLayer::Kind::kSelf : SessionLayer::Kind::kCross;
    layer.heads = shape.heads;
    layer.kv_heads = shape.kv_heads;
    layer.head_dim = shape.head_dim;
    layer.value_head_dim = shape.value_head_dim;
    layer.bias = Bias::kNone;
    request.layers.push_back(layer);
  }
  return request;
}

ctl::SessionPlan PlanOf(const Shape& shape) {
  std::vector<std::string> words = {"sessions", "plan"};
  const auto add = [&words](const char* flag, std::int64_t value) {
    if (value != 0) words.push_back(absl::StrCat("--", flag, "=", value));
  };
  add("rows", shape.rows);
  add("sources", shape.sources);
  add("self_layers", shape.self_layers);
  add("cross_layers", shape.cross_layers);
  add("heads", shape.heads);
  add("kv_heads", shape.kv_heads);
  add("head_dim", shape.head_dim);
  add("value_head_dim", shape.value_head_dim);
  add("max_tokens", shape.max_tokens);
  add("max_source_tokens", shape.max_source_tokens);
  words.push_back(absl::StrCat("--dtype=", shape.dtype == DType::kFp32   ? "f32"
                                           : shape.dtype == DType::kFp16 ? "f16"
                                                                         : "bf16"));
  ctl::Flags flags;
  const absl::StatusOr<ctl::Line> line = ctl::ParseLine(words, flags);
  EXPECT_TRUE(line.ok()) << line.status();
  absl::StatusOr<ctl::SessionPlan> plan = ctl::PlanOf(flags);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

void ExpectReserved(Client& client, const Shape& shape) {
  const absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(RequestOf(shape));
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ(PlanOf(shape).bytes.total(), (*session)->facts().reserved_bytes)
      << shape.rows << " rows, " << shape.sources << " sources, " << shape.self_layers << " + " << shape.cross_layers
      << " layers, heads " << shape.heads << "/" << shape.kv_heads << ", dims " << shape.head_dim << "/"
      << shape.value_head_dim << ", tokens " << shape.max_tokens << "/" << shape.max_source_tokens;
  EXPECT_TRUE((*session)->Close().ok());
}

server::Options OptionsWith(std::int64_t bytes) {
  server::Options options = TestOptions();
  options.limits.max_inflight_bytes = bytes;
  return options;
}

TEST(SessionPlanTest, IsWhatTheServerReservesToTheByte) {
  TestServer server(OptionsWith(std::int64_t{8} << 30));
  Client client = *Client::Create(server.address());
  for (const DType dtype : {DType::kFp32, DType::kFp16, DType::kBf16}) {
    // T5-small, as docs/sessions.md has it; the smallest; and either kind alone, about the ends of pages.
    ExpectReserved(client, {16, 4, 6, 6, 8, 0, 64, 0, 256, 512, dtype});
    ExpectReserved(client, {1, 0, 1, 0, 1, 0, 1, 0, 1, 0, dtype});
    ExpectReserved(client, {3, 0, 2, 0, 8, 2, 128, 64, 63, 0, dtype});
    ExpectReserved(client, {3, 3, 0, 2, 8, 8, 5, 3, 0, 64, dtype});
    ExpectReserved(client, {7, 2, 1, 1, 4, 1, 80, 96, 65, 129, dtype});
  }
  std::mt19937 random(5);
  const auto one_of = [&random](std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(random);
  };
  for (int i = 0; i < 40; ++i) {
    Shape shape{};
    shape.rows = one_of(1, 40);
    shape.self_layers = one_of(0, 7);
    shape.cross_layers = one_of(shape.self_layers == 0 ? 1 : 0, 7);
    if (shape.cross_layers > 0) shape.sources = one_of(1, shape.rows);
    shape.kv_heads = one_of(1, 4);
    shape.heads = shape.kv_heads * one_of(1, 4);
    shape.head_dim = one_of(1, 130);
    shape.value_head_dim = one_of(1, 130);
    if (shape.self_layers > 0) shape.max_tokens = one_of(1, 700);
    if (shape.cross_layers > 0) shape.max_source_tokens = one_of(1, 700);
    shape.dtype = std::vector{DType::kFp32, DType::kFp16, DType::kBf16}[static_cast<std::size_t>(one_of(0, 2))];
    ExpectReserved(client, shape);
  }
}

// Opens sessions until one is refused.
std::vector<std::unique_ptr<Session>> OpenAll(Client& client, const Shape& shape) {
  std::vector<std::unique_ptr<Session>> sessions;
  while (sessions.size() < 1000) {
    absl::StatusOr<std::unique_ptr<Session>> session = client.OpenSession(RequestOf(shape));
    if (!session.ok()) {
      EXPECT_EQ(session.status().code(), absl::StatusCode::kResourceExhausted) << session.status();
      return sessions;
    }
    sessions.push_back(*std::move(session));
  }
  ADD_FAILURE() << "none is refused";
  return sessions;
}

TEST(SessionPlanTest, AsManyFitAsItSays) {
  const Shape shape{4, 0, 2, 0, 2, 0, 16, 0, 100, 0, DType::kFp32};
  const std::int64_t bytes = PlanOf(shape).bytes.total();
  for (const bool shares : {true, false}) {
    server::Options options = OptionsWith(bytes * 9 + bytes / 2);
    options.peer_shares = shares;
    TestServer server(options);
    ClientOptions client_options;
    client_options.retry.enabled = false;  // a refusal is what is looked for
    Client client = *Client::Create(server.address(), client_options);
    const std::optional<ctl::SessionBudget> budget = ctl::BudgetOf(*client.GetServerInfo());
    ASSERT_TRUE(budget.has_value());
    EXPECT_EQ(budget->shares, shares);
    const ctl::Fit fit = ctl::FitOfOneCaller(bytes, *budget);
    EXPECT_EQ(fit.sessions, shares ? 4 : 9);
    EXPECT_EQ(static_cast<std::int64_t>(OpenAll(client, shape).size()), fit.sessions);
  }
}

TEST(SessionPlanTest, NumbersOfSessionsAreTheServers) {
  const Shape shape{1, 0, 1, 0, 1, 0, 8, 0, 10, 0, DType::kFp32};
  server::Options options = OptionsWith(std::int64_t{1} << 30);
  options.max_sessions = 5;
  options.max_peer_sessions = 3;
  TestServer server(options);
  ClientOptions client_options;
  client_options.retry.enabled = false;
  Client client = *Client::Create(server.address(), client_options);
  const ctl::Fit one = ctl::FitOfOneCaller(PlanOf(shape).bytes.total(), *ctl::BudgetOf(*client.GetServerInfo()));
  EXPECT_EQ(one.bound, ctl::Bound::kMaxPeerSessions);
  const std::vector<std::unique_ptr<Session>> sessions = OpenAll(client, shape);
  EXPECT_EQ(static_cast<std::int64_t>(sessions.size()), one.sessions);
  const ctl::Fit more = ctl::FitOfAllCallers(PlanOf(shape).bytes.total(), *ctl::BudgetOf(*client.GetServerInfo()));
  EXPECT_EQ(more.sessions, 2);
  EXPECT_EQ(more.bound, ctl::Bound::kMaxSessions);
}

}  // namespace
}  // namespace attnd::e2e
