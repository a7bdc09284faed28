#include "server/rpc/refused_stream.h"

#include <cstddef>
#include <cstdlib>
#include <new>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace attnd::server {
namespace {

// As much of a reactor of gRPC as is asked for, whose allocation fails at a test's will.
class Reactor {
 public:
  static inline bool no_memory = false;
  static inline int alive = 0;

  Reactor() { ++alive; }
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;
  virtual ~Reactor() { --alive; }

  static void* operator new(std::size_t size) { return ::operator new(size); }
  static void* operator new(std::size_t /*size*/, void* place) { return place; }
  static void* operator new(std::size_t size, const std::nothrow_t& nothrow) noexcept {
    return no_memory ? nullptr : ::operator new(size, nothrow);
  }
  static void operator delete(void* block) { ::operator delete(block); }

  virtual void OnDone() = 0;
  void Finish(grpc::Status status) { finished_with = status.error_code(); }

  grpc::StatusCode finished_with = grpc::StatusCode::OK;
};

class RefusedStreamsTest : public testing::Test {
 protected:
  ~RefusedStreamsTest() override { Reactor::no_memory = false; }

  Reactor* Refuse() { return streams_.Refuse({grpc::StatusCode::RESOURCE_EXHAUSTED, "out of memory"}); }

  static constexpr std::size_t kSpares = RefusedStreams<Reactor>::kSpares;
  RefusedStreams<Reactor> streams_;
};

TEST_F(RefusedStreamsTest, EndsEachWithTheStatus) {
  Reactor* const refused = Refuse();
  ASSERT_NE(refused, nullptr);
  EXPECT_EQ(refused->finished_with, grpc::StatusCode::RESOURCE_EXHAUSTED);
  refused->OnDone();
  EXPECT_EQ(Reactor::alive, kSpares) << "those kept, and no more";
}

TEST_F(RefusedStreamsTest, WithoutMemoryAsManyAtOnceAsAreKept) {
  Reactor::no_memory = true;
  for (int round = 0; round < 3; ++round) {
    std::vector<Reactor*> refused;
    for (std::size_t i = 0; i < kSpares; ++i) {
      refused.push_back(Refuse());
      ASSERT_NE(refused.back(), nullptr) << i;
      EXPECT_EQ(refused.back()->finished_with, grpc::StatusCode::RESOURCE_EXHAUSTED);
    }
    EXPECT_EQ(std::set(refused.begin(), refused.end()).size(), kSpares);
    EXPECT_EQ(Refuse(), nullptr) << "one more than are kept";
    for (Reactor* const one : refused) {
      one->OnDone();
      EXPECT_EQ(one->finished_with, grpc::StatusCode::OK) << "as new";
    }
  }
}

TEST_F(RefusedStreamsTest, WhatIsMadeInBetweenIsKeptInsteadOrGoes) {
  Reactor::no_memory = true;
  Reactor* const kept = Refuse();
  Reactor::no_memory = false;
  Reactor* const made = Refuse();
  ASSERT_NE(made, nullptr);
  EXPECT_EQ(Reactor::alive, kSpares + 1);
  made->OnDone();
  EXPECT_EQ(Reactor::alive, kSpares + 1) << "in the place of the one that is in use";
  kept->OnDone();
  EXPECT_EQ(Reactor::alive, kSpares);
}

}  // namespace
}  // namespace attnd::server
