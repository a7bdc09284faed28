// Refuses streams: ends them with an error before they begin.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"

namespace attnd::server {

// Makes reactors that end their streams at once. gRPC has a default reactor only for unary calls, and answers
// UNIMPLEMENTED to a stream without a reactor. Spare reactors are kept for when there is no memory for a new one; each
// is in use until gRPC has sent its status, which may be after the caller's next call. `Reactor` is a gRPC server
// reactor. Thread-safe; must outlive its reactors.
template <typename Reactor>
class RefusedStreams {
 public:
  static constexpr std::size_t kSpares = 32;

  RefusedStreams() {
    for (std::atomic<Refused*>& spare : spares_) spare = new Refused(*this);
  }
  ~RefusedStreams() {
    for (std::atomic<Refused*>& spare : spares_) delete spare.load();
  }
  RefusedStreams(const RefusedStreams&) = delete;
  RefusedStreams& operator=(const RefusedStreams&) = delete;

  // Never throws. Returns null, to which gRPC answers UNIMPLEMENTED, if there is no memory and all spares are in use.
  Reactor* Refuse(grpc::Status status) {
    Refused* refused = new (std::nothrow) Refused(*this);
    for (std::size_t i = 0; refused == nullptr && i < kSpares; ++i) refused = spares_[i].exchange(nullptr);
    if (refused != nullptr) refused->Finish(std::move(status));
    return refused;
  }

 private:
  class Refused final : public Reactor {
   public:
    explicit Refused(RefusedStreams& owner) : owner_(owner) {}
    void OnDone() override {
      RefusedStreams& owner = owner_;
      // Reconstruct it in place, because a reactor serves only one call.
      this->~Refused();
      auto* const unused = new (static_cast<void*>(this)) Refused(owner);
      for (std::atomic<Refused*>& spare : owner.spares_) {
        Refused* none = nullptr;
        if (spare.compare_exchange_strong(none, unused)) return;
      }
      delete unused;
    }

   private:
    RefusedStreams& owner_;
  };

  std::array<std::atomic<Refused*>, kSpares> spares_;
};

}  // namespace attnd::server
