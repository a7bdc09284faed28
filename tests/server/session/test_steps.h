// A session's steps for tests, and what a session holds after them.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/rpc/status.h"
#include "server/session/session.h"
#include "session/session_calls.h"

namespace attnd::server {

inline constexpr std::int64_t kRows = 4, kSources = 2, kMostTokens = 100;

// Two self layers and a cross layer: 0, 2 and 1.
inline v1::SessionOpen MixedOpen() {
  v1::SessionOpen open = PlainOpen(kRows, kSources, kMostTokens);
  *open.add_layers() = PlainLayer(v1::SESSION_LAYER_KIND_SELF, 2, 4);
  return open;
}

class TestSteps {
 public:
  explicit TestSteps(const v1::SessionOpen& open = MixedOpen(), const Limits& limits = {},
                     std::int64_t max_sent_bytes = std::numeric_limits<std::int64_t>::max(),
                     const SharedMemory* memory = nullptr)
      : open_(open) {
    absl::StatusOr<SessionShape> shape = CheckOpen(open, limits, registry_);
    EXPECT_TRUE(shape.ok()) << shape.status();
    absl::StatusOr<std::unique_ptr<Session>> session =
        Session::Create(*std::move(shape), limits, memory, max_sent_bytes);
    EXPECT_TRUE(session.ok()) << session.status();
    session_ = *std::move(session);
  }

  Session& operator*() { return *session_; }
  Session* operator->() { return session_.get(); }
  std::uint64_t next() const { return session_->last_step() + 1; }
  v1::SessionRequest Step(std::int64_t tokens, std::int64_t queries, int layer = 0) const {
    return PlainStep(open_, next(), tokens, queries, layer);
  }

  // Begins a step; what it computes is in `attention` until End.
  absl::Status Begin(const v1::SessionRequest& request) {
    decoded_ = *Decode<v1::SessionRequest>(BytesOf(request), Limits().max_header_bytes);
    absl::StatusOr<std::optional<ValidAttention>> begun = session_->Begin(decoded_.header.step(), decoded_.tensors());
    attention = begun.ok() ? *std::move(begun) : std::nullopt;
    return begun.status();
  }
  absl::Status Take(const v1::SessionRequest& request) {
    const absl::Status begun = Begin(request);
    if (begun.ok()) session_->End(true);
    return begun;
  }
  void MustTake(const v1::SessionRequest& request) {
    const absl::Status taken = Take(request);
    EXPECT_TRUE(taken.ok()) << taken;
  }

  // All that a step may change: lengths, sources, starts, bits and pages, as queries see them.
  std::string State() {
    std::string state = absl::StrCat("step ", session_->last_step(), ", bytes ", session_->used_bytes());
    for (int layer = 0; layer < open_.layers_size(); ++layer) {
      const absl::Status begun = Begin(Step(0, 1, layer));
      EXPECT_TRUE(begun.ok()) << begun;
      if (!attention.has_value()) continue;
      const kernel::Attention& a = attention->attention;
      absl::StrAppend(&state, "\nlayer ", layer);
      for (std::int64_t row = 0; row < a.batch; ++row) {
        absl::StrAppend(&state, "; ", a.key_lengths[row], a.key_starts == nullptr ? 0 : a.key_starts[row], " ",
                        a.query_offsets[row], " ");
        if (a.key_bits == nullptr) continue;
        const std::int64_t bytes = (a.key_length + 7) / 8;
        for (std::int64_t i = 0; i < bytes; ++i) {
          absl::StrAppend(&state, std::to_integer<int>(a.key_bits[row * bytes + i]), ",");
        }
      }
      session_->End(false);
    }
    return state;
  }

  std::optional<ValidAttention> attention;

 private:
  const v1::SessionOpen open_;
  model::Registry registry_{model::RegistryOptions{}};
  std::unique_ptr<Session> session_;
  Decoded<v1::SessionRequest> decoded_;
};

inline std::string FieldOf(const absl::Status& status) {
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  return detail.has_value() ? detail->field() : absl::StrCat("no field: ", status.ToString());
}

// A session with tokens, sources that have changed places, starts and bits.
inline void Fill(TestSteps& session) {
  session.MustTake(session.Step(10, 0));
  session.MustTake(session.Step(7, 0, 2));
  session.MustTake(session.Step(20, 0, 1));
  v1::SessionRequest marks = session.Step(0, 0);
  v1::SessionStep& step = *marks.mutable_step();
  for (const int row : {3, 0, 1, 2}) step.add_reorder(row);
  for (const int start : {1, 2, 3, 4}) step.add_key_starts(start);
  step.set_key_bits(std::string("\x0f\xf0\x01\x33\x44\x01", 6));
  step.set_key_bits_length(17);
  session.MustTake(marks);
}

}  // namespace attnd::server
