// The table's counts and choices, with sessions that only say how they are.
#include "server/session/session_table.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/rpc/status.h"
#include "wait.h"

namespace attnd::server {
namespace {

using absl::StatusCode;
using test::Becomes;
using testing::ElementsAre;
using testing::HasSubstr;

// A session with a connection. It leaves the table when it is told to end.
class FakeSession final : public OpenSession {
 public:
  FakeSession(SessionTable& table, std::string name) : table_(table), name_(std::move(name)) {}

  bool EndIfOver(Clock::time_point) override { return is_over.exchange(false) && End("over"); }
  std::optional<Idle> IdleFor(Clock::time_point) override { return idle; }
  bool EndIfLeaseIsOver(Clock::time_point) override { return idle.has_value() && !works_again && End("lease"); }
  bool Evict() override { return End("evicted"); }
  void Describe(Clock::time_point, v1::SessionInfo& info) override { info.set_model(name_); }
  void SayGoingAway(absl::Duration time_left) override { going_away.push_back(time_left); }
  void EndForStop() override { End("stop"); }
  std::optional<SessionState> Yield() override {
    ++yields;
    return std::nullopt;
  }

  std::string ended() const {
    absl::MutexLock lock(&mutex_);
    return ended_;
  }

  std::optional<Idle> idle;  // set before the table has it
  bool works_again = false;
  std::atomic<bool> is_over{false};
  std::vector<absl::Duration> going_away;
  int yields = 0;

 private:
  bool End(const std::string& how) {
    {
      absl::MutexLock lock(&mutex_);
      if (!ended_.empty()) return false;
      ended_ = how;
    }
    table_.Remove(this);
    return true;
  }

  SessionTable& table_;
  const std::string name_;
  mutable absl::Mutex mutex_;
  std::string ended_ ABSL_GUARDED_BY(mutex_);
};

// A table, in which sessions are known by their names.
class TestTable {
 public:
  explicit TestTable(const SessionOptions& options) : table_(std::make_unique<SessionTable>(options)) {}
  ~TestTable() {
    for (const auto& [name, session] : sessions_) session->Evict();
    table_->EndAll();
    // Its end waits until nobody is in it.
    if (Becomes([&] { return table_->use().open == 0; })) return;
    ADD_FAILURE() << "sessions stay in the table";
    static_cast<void>(table_.release());  // NOLINT(bugprone-unused-return-value)
  }

  SessionTable& operator*() { return *table_; }
  SessionTable* operator->() { return table_.get(); }

  std::shared_ptr<memory::Account> PeerOf(const std::string& name) { return ledger_.AccountOf(name); }

  absl::Status Add(const std::string& name, const std::string& peer, std::optional<OpenSession::Idle> idle = {}) {
    auto session = std::make_shared<FakeSession>(*table_, name);
    session->idle = idle;
    accounts_.push_back(PeerOf(peer));
    absl::Status added = table_->Add(session, accounts_.back().get());
    if (added.ok()) sessions_[name] = session;
    return added;
  }
  FakeSession& operator[](const std::string& name) { return *sessions_.at(name); }

  // What is kept of a session, with its token.
  SessionState StateOf(const std::string& name, const std::string& peer, absl::Duration grace = absl::Hours(1)) {
    SessionState state;
    state.account = PeerOf(peer);
    state.reserved = std::get<memory::Ticket>(ledger_.Take(state.account, 100));
    state.said.set_model(name);
    state.token = name;
    state.grace = grace;
    state.begun_at = schedule::Clock::now();
    return state;
  }
  // The session loses its connection.
  void Park(const std::string& name, const std::string& peer, absl::Duration grace = absl::Hours(1)) {
    Park(name, StateOf(name, peer, grace));
  }
  void Park(const std::string& name, SessionState state) {
    table_->SetToken(&(*this)[name], state.token);
    table_->Park(&(*this)[name], std::move(state));
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    const v1::ListSessionsResponse list = table_->List();
    for (const v1::SessionInfo& info : list.sessions()) names.push_back(info.model());
    return names;
  }
  std::uint64_t IdOf(const std::string& name) {
    const v1::ListSessionsResponse list = table_->List();
    for (const v1::SessionInfo& info : list.sessions()) {
      if (info.model() == name) return info.id();
    }
    ADD_FAILURE() << name << " is not in the table";
    return 0;
  }
  std::int64_t reserved() const { return ledger_.used_bytes(); }

 private:
  memory::Ledger ledger_{{.total = 1 << 20, .shares = false}};
  std::vector<std::shared_ptr<memory::Account>> accounts_;
  std::unique_ptr<SessionTable> table_;
  std::map<std::string, std::shared_ptr<FakeSession>> sessions_;
};

OpenSession::Idle IdleOf(int seconds, std::int64_t bytes = 100) { return {absl::Seconds(seconds), bytes}; }

TEST(SessionTableTest, AsManyAsMayBeOpenAndNotOneMore) {
  TestTable table({.most = 3, .most_of_peer = 2});
  EXPECT_TRUE(table.Add("a1", "a").ok());
  EXPECT_TRUE(table.Add("a2", "a").ok());
  const absl::Status of_peer = table.Add("a3", "a");
  EXPECT_EQ(of_peer.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(of_peer.message()), HasSubstr("at most 2 sessions of one peer"));
  EXPECT_TRUE(RetryDelayOf(of_peer).has_value());
  EXPECT_TRUE(table.Add("b1", "b").ok());
  const absl::Status in_all = table.Add("c1", "c");
  EXPECT_EQ(in_all.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(in_all.message()), HasSubstr("at most 3 sessions in all"));
  EXPECT_TRUE(RetryDelayOf(in_all).has_value());
  EXPECT_EQ(table->use().open, 3);
  EXPECT_EQ(table->use().most, 3);
  EXPECT_EQ(table->use().most_of_peer, 2);
  EXPECT_TRUE(table["a1"].Evict());
  EXPECT_TRUE(table.Add("a3", "a").ok()) << "one has left";
  EXPECT_FALSE(table.Add("a4", "a").ok());
}

TEST(SessionTableTest, FullOnesEvictTheLongestIdleOneWhoseLeaseIsOver) {
  TestTable table({.most = 4, .most_of_peer = 4, .lease = absl::Seconds(60)});
  ASSERT_TRUE(table.Add("short", "a", IdleOf(61)).ok());
  ASSERT_TRUE(table.Add("long", "b", IdleOf(63)).ok());
  ASSERT_TRUE(table.Add("middle", "c", IdleOf(62)).ok());
  ASSERT_TRUE(table.Add("fresh", "d", IdleOf(60)).ok());
  EXPECT_TRUE(table.Add("1", "e", IdleOf(0)).ok());
  EXPECT_THAT(table.Names(), ElementsAre("short", "middle", "fresh", "1"));
  EXPECT_EQ(table["long"].ended(), "lease");
  EXPECT_TRUE(table.Add("2", "e", IdleOf(0)).ok());
  EXPECT_TRUE(table.Add("3", "e", IdleOf(0)).ok());
  EXPECT_THAT(table.Names(), ElementsAre("fresh", "1", "2", "3"));
  EXPECT_EQ(table.Add("4", "e", IdleOf(0)).code(), StatusCode::kResourceExhausted) << "60 s are not over 60 s";
  EXPECT_EQ(table->use().evicted, 3);
}

TEST(SessionTableTest, APeerAtItsLimitLosesOneOfItsOwn) {
  TestTable table({.most = 10, .most_of_peer = 1, .lease = absl::Seconds(60)});
  ASSERT_TRUE(table.Add("other", "b", IdleOf(1000)).ok());
  ASSERT_TRUE(table.Add("busy", "a").ok());
  EXPECT_EQ(table.Add("next", "a").code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(table.Names(), ElementsAre("other", "busy"));
  table["busy"].Evict();
  ASSERT_TRUE(table.Add("idle", "a", IdleOf(61)).ok());
  EXPECT_TRUE(table.Add("next", "a").ok());
  EXPECT_THAT(table.Names(), ElementsAre("other", "next"));
}

// It is chosen without a lock, and may have a step by the time it is told.
TEST(SessionTableTest, OneThatWorksAgainIsLeftAlone) {
  TestTable table({.most = 2, .lease = absl::Seconds(60)});
  ASSERT_TRUE(table.Add("works", "a", IdleOf(100)).ok());
  table["works"].works_again = true;
  ASSERT_TRUE(table.Add("idle", "a", IdleOf(70)).ok());
  EXPECT_TRUE(table.Add("next", "b").ok());
  EXPECT_THAT(table.Names(), ElementsAre("works", "next"));
  EXPECT_EQ(table->use().evicted, 1);
  EXPECT_FALSE(table.Add("more", "b").ok());
  EXPECT_EQ(table->use().evicted, 1);
}

TEST(SessionTableTest, MakesRoomWithAsFewAsNeededAndNeverInVain) {
  const auto fill = [](TestTable& table) {
    ASSERT_TRUE(table.Add("61", "a", IdleOf(61, 30)).ok());
    ASSERT_TRUE(table.Add("63", "b", IdleOf(63, 10)).ok());
    ASSERT_TRUE(table.Add("60", "c", IdleOf(60, 1000)).ok());
    ASSERT_TRUE(table.Add("62", "d", IdleOf(62, 20)).ok());
    ASSERT_TRUE(table.Add("busy", "e").ok());
  };
  const std::pair<std::int64_t, std::vector<std::string>> cases[] = {
      {1, {"61", "60", "62", "busy"}},
      {10, {"61", "60", "62", "busy"}},
      {11, {"61", "60", "busy"}},
      {30, {"61", "60", "busy"}},
      {31, {"60", "busy"}},
      {60, {"60", "busy"}},
      {61, {"61", "63", "60", "62", "busy"}},
      {1000, {"61", "63", "60", "62", "busy"}},
  };
  for (const auto& [bytes, left] : cases) {
    TestTable table({.lease = absl::Seconds(60)});
    fill(table);
    EXPECT_EQ(table->MakeRoom(bytes), left.size() < 5) << bytes;
    EXPECT_EQ(table.Names(), left) << bytes;
    EXPECT_EQ(table->use().evicted, static_cast<std::int64_t>(5 - left.size())) << bytes;
  }
}

TEST(SessionTableTest, ParkedOnesMakeRoomToo) {
  TestTable table({.lease = absl::ZeroDuration()});
  ASSERT_TRUE(table.Add("parked", "a").ok());
  table.Park("parked", "a");
  EXPECT_FALSE(table->MakeRoom(101));
  EXPECT_EQ(table.reserved(), 100);
  EXPECT_TRUE(table->MakeRoom(100));
  EXPECT_TRUE(Becomes([&] { return table.reserved() == 0; }));
  EXPECT_EQ(table->use().open, 0);
}

TEST(SessionTableTest, AnOperatorEvictsTheOneOfThatId) {
  TestTable table({});
  for (const char* name : {"1", "2", "3"}) ASSERT_TRUE(table.Add(name, "a").ok());
  const std::uint64_t id = table.IdOf("2");
  EXPECT_TRUE(table->Evict(id).ok());
  EXPECT_THAT(table.Names(), ElementsAre("1", "3"));
  EXPECT_EQ(table["2"].ended(), "evicted");
  for (const std::uint64_t none : {id, std::uint64_t{0}, std::uint64_t{4}}) {
    const absl::Status status = table->Evict(none);
    EXPECT_EQ(status.code(), StatusCode::kNotFound);
    EXPECT_THAT(std::string(status.message()), HasSubstr("id: "));
  }
  EXPECT_EQ(table->use().evicted, 1);
  ASSERT_TRUE(table.Add("4", "a").ok());
  EXPECT_EQ(table.IdOf("4"), 4U) << "ids are not used again";
}

TEST(SessionTableTest, ItsThreadEndsThoseThatAreOver) {
  TestTable table({.idle = absl::Milliseconds(20)});
  ASSERT_TRUE(table.Add("stays", "a").ok());
  ASSERT_TRUE(table.Add("over", "a").ok());
  table["over"].is_over = true;
  EXPECT_TRUE(Becomes([&] { return table["over"].ended() == "over"; }));
  EXPECT_TRUE(Becomes([&] { return table->use().evicted == 1; }));
  EXPECT_THAT(table.Names(), ElementsAre("stays"));
}

TEST(SessionTableTest, AStoppingServerTellsEachOnceAndTakesNoMore) {
  TestTable table({.most = 3});
  ASSERT_TRUE(table.Add("open", "a").ok());
  ASSERT_TRUE(table.Add("parked", "a").ok());
  ASSERT_TRUE(table.Add("lost", "a").ok());
  table.Park("parked", "a");
  table->GoAway(absl::Seconds(5));
  table->GoAway(absl::Seconds(6));
  EXPECT_THAT(table["open"].going_away, ElementsAre(absl::Seconds(5)));
  EXPECT_TRUE(Becomes([&] { return table.reserved() == 0; })) << "what was parked is kept";
  EXPECT_EQ(table.Add("late", "b").code(), StatusCode::kUnavailable);
  table.Park("lost", "a");
  EXPECT_TRUE(Becomes([&] { return table.reserved() == 0; })) << "it is parked in a stopping server";
  EXPECT_EQ(table["open"].ended(), "");
  table->EndAll();
  EXPECT_EQ(table["open"].ended(), "stop");
  EXPECT_EQ(table["lost"].ended(), "stop");
  EXPECT_EQ(table->use().open, 0);
}

TEST(SessionTableTest, AParkedOneCountsApartAndItsConnectionNoMore) {
  TestTable table({.most = 2, .most_of_peer = 1});
  ASSERT_TRUE(table.Add("1", "a").ok());
  table.Park("1", "a");
  EXPECT_EQ(table->use().open, 1);
  ASSERT_TRUE(table.Add("2", "a").ok()) << "the peer has no other connection";
  EXPECT_FALSE(table.Add("3", "a").ok());
  ASSERT_TRUE(table.Add("3", "b").ok());
  EXPECT_FALSE(table.Add("4", "c").ok());
  EXPECT_EQ(table->use().open, 3);
  EXPECT_THAT(table.Names(), ElementsAre("1", "2", "3"));
}

// The peer's limit and that of all, each at it and one beyond.
TEST(SessionTableTest, AsManyAreParkedAsMayBeOpen) {
  TestTable table({.most = 3, .most_of_peer = 2});
  const auto park = [&](const std::string& name, const std::string& peer) {
    ASSERT_TRUE(table.Add(name, peer).ok()) << name;
    table.Park(name, peer);
    table[name].Evict();  // it leaves by itself if it was refused
  };
  park("a1", "a");
  park("a2", "a");
  EXPECT_EQ(table.reserved(), 200);
  park("a3", "a");
  ASSERT_TRUE(Becomes([&] { return table.reserved() == 200; })) << "a third of one peer is kept";
  EXPECT_THAT(table.Names(), ElementsAre("a1", "a2"));
  park("b1", "b");
  EXPECT_EQ(table.reserved(), 300);
  park("c1", "c");
  ASSERT_TRUE(Becomes([&] { return table.reserved() == 300; })) << "a fourth is kept";
  EXPECT_THAT(table.Names(), ElementsAre("a1", "a2", "b1"));
  // Each way out of the table makes room for another.
  EXPECT_TRUE(table->Evict(table.IdOf("a1")).ok());
  park("a4", "a");
  EXPECT_THAT(table.Names(), ElementsAre("a2", "b1", "a4"));
  ASSERT_TRUE(table.Add("by", "c").ok());
  EXPECT_TRUE(table->Resume("a2", &table["by"]).ok());
  table["by"].Evict();
  ASSERT_TRUE(Becomes([&] { return table.reserved() == 200; }));
  park("a5", "a");
  EXPECT_THAT(table.Names(), ElementsAre("b1", "a4", "a5"));
  EXPECT_TRUE(table.Add("o1", "o").ok() && table.Add("o2", "o").ok() && table.Add("p1", "p").ok())
      << "parked ones take no place of those with a connection";
  EXPECT_FALSE(table.Add("p2", "p").ok());
}

TEST(SessionTableTest, AResumedOneKeepsItsIdAndItsToken) {
  TestTable table({});
  ASSERT_TRUE(table.Add("lost", "a").ok());
  ASSERT_TRUE(table.Add("other", "b").ok());
  table.Park("lost", "a");
  for (const char* by : {"by1", "by2"}) {
    ASSERT_TRUE(table.Add(by, "c").ok());
    absl::StatusOr<SessionState> state = table->Resume("lost", &table[by]);
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_EQ(state->reserved.bytes(), 100);
    EXPECT_EQ(state->token, "lost");
    EXPECT_EQ(table.IdOf(by), 1U);
    EXPECT_EQ(table->use().open, 2);
    table->Park(&table[by], *std::move(state));
  }
}

TEST(SessionTableTest, NobodyResumesWhatIsNotHisToResume) {
  TestTable table({});
  ASSERT_TRUE(table.Add("plain", "a").ok());
  ASSERT_TRUE(table.Add("connected", "a").ok());
  ASSERT_TRUE(table.Add("by", "b").ok());
  table->SetToken(&table["connected"], "connected");
  for (const char* token : {"", "x", "connec", "connectedx"}) {
    EXPECT_EQ(table->Resume(token, &table["by"]).status().code(), StatusCode::kNotFound) << token;
  }
  EXPECT_EQ(table["plain"].yields + table["connected"].yields + table["by"].yields, 0);
  const absl::Status busy = table->Resume("connected", &table["by"]).status();
  EXPECT_EQ(busy.code(), StatusCode::kUnavailable);
  EXPECT_TRUE(RetryDelayOf(busy).has_value());
  EXPECT_EQ(table["connected"].yields, 1) << "it is told";
  EXPECT_EQ(table["plain"].yields + table["by"].yields, 0);
  EXPECT_EQ(table->use().open, 3);
}

// The lookup is over when the session is taken by another: only one gets it.
TEST(SessionTableTest, OnlyOneOfManyResumesIt) {
  TestTable table({});
  ASSERT_TRUE(table.Add("lost", "a").ok());
  table.Park("lost", "a");
  constexpr int kThreads = 4;
  for (int i = 0; i < kThreads; ++i) ASSERT_TRUE(table.Add(std::to_string(i), "b").ok());
  std::atomic<int> got{0}, refused{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    FakeSession& by = table[std::to_string(i)];
    threads.emplace_back([&] {
      const absl::StatusOr<SessionState> state = table->Resume("lost", &by);
      ++(state.ok() ? got : refused);
      if (!state.ok()) {
        EXPECT_TRUE(absl::IsUnavailable(state.status()) || absl::IsNotFound(state.status())) << state.status();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(got.load(), 1);
  EXPECT_EQ(refused.load(), kThreads - 1);
  EXPECT_EQ(table->use().open, kThreads);
}

TEST(SessionTableTest, AParkedOneIsKeptForItsGraceAndNotBeyondItsLife) {
  struct Case {
    const char* name;
    absl::Duration grace, age;
    bool stays;
  };
  const Case cases[] = {{"grace", absl::Milliseconds(30), absl::ZeroDuration(), false},
                        {"life", absl::Hours(1), absl::Hours(2) - absl::Milliseconds(30), false},
                        {"over", absl::Hours(1), absl::Hours(3), false},
                        {"stays", absl::Hours(1), absl::Hours(1), true}};
  TestTable table({.life = absl::Hours(2), .grace = absl::Milliseconds(40)});
  for (const Case& c : cases) {
    ASSERT_TRUE(table.Add(c.name, "a").ok());
    SessionState state = table.StateOf(c.name, "a", c.grace);
    state.begun_at -= absl::ToChronoNanoseconds(c.age);
    table.Park(c.name, std::move(state));
  }
  ASSERT_TRUE(Becomes([&] { return table->use().open == 1; }));
  EXPECT_THAT(table.Names(), ElementsAre("stays"));
  EXPECT_TRUE(Becomes([&] { return table.reserved() == 100; })) << "what the others kept is not freed";
  EXPECT_TRUE(Becomes([&] { return table->use().evicted == 3; }));
}

TEST(SessionTableTest, AParkedOneIsListedWithItsTimes) {
  TestTable table({});
  ASSERT_TRUE(table.Add("lost", "a").ok());
  SessionState state = table.StateOf("lost", "a");
  state.begun_at -= std::chrono::hours(5);
  table.Park("lost", std::move(state));
  const v1::ListSessionsResponse list = table->List();
  ASSERT_EQ(list.sessions_size(), 1);
  EXPECT_EQ(list.sessions(0).model(), "lost");
  EXPECT_GE(list.sessions(0).age().seconds(), 5 * 3600);
  EXPECT_LT(list.sessions(0).idle().seconds(), 5 * 3600);
}

TEST(SessionTableTest, ItsEndFreesWhatIsParkedAndWaitsForNobodyElse) {
  memory::Ledger ledger({.total = 1000, .shares = false});
  auto table = std::make_unique<SessionTable>(SessionOptions());
  const auto session = std::make_shared<FakeSession>(*table, "lost");
  ASSERT_TRUE(table->Add(session, nullptr).ok());
  SessionState state;
  state.account = ledger.AccountOf("a");
  state.reserved = std::get<memory::Ticket>(ledger.Take(state.account, 100));
  state.grace = absl::Hours(1);
  state.begun_at = schedule::Clock::now();
  table->Park(session.get(), std::move(state));
  EXPECT_EQ(ledger.used_bytes(), 100);
  const bool ended = test::Ends([&table] { table.reset(); });
  EXPECT_TRUE(ended);
  if (!ended) std::abort();  // it uses what is here
  EXPECT_EQ(ledger.used_bytes(), 0);
}

// Of one that is freed on another thread, nothing is left once it is gone.
TEST(SessionTableTest, FreesOnItsOwnThread) {
  TestTable table({});
  for (int i = 0; i < 10; ++i) table->Free(table.StateOf("gone", "a"));
  EXPECT_TRUE(Becomes([&] { return table.reserved() == 0; }));
}

}  // namespace
}  // namespace attnd::server
