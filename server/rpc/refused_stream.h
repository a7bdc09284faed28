// A stream that ends with an error before it has begun.
#pragma once

#include <atomic>
#include <memory>
#include <new>
#include <utility>

#include "grpcpp/support/server_callback.h"
#include "grpcpp/support/status.h"

namespace attnd::server {

// Makes reactors that end their streams. gRPC has one of its own for unary calls alone, and takes a stream without a
// reactor for a method that does not exist. One reactor is kept for when there is no memory for another. `Reactor` is a
// server's reactor of gRPC. Thread-safe; outlives its reactors.
template <typename Reactor>
class RefusedStreams {
 public:
  RefusedStreams() : spare_(new Refused(*this)) {}
  ~RefusedStreams() { delete spare_.load(); }
  RefusedStreams(const RefusedStreams&) = delete;
  RefusedStreams& operator=(const RefusedStreams&) = delete;

  // Never throws. Null, with which gRPC answers UNIMPLEMENTED, where there is no memory and the spare one is in use.
  Reactor* Refuse(grpc::Status status) {
    Refused* refused = new (std::nothrow) Refused(*this);
    if (refused == nullptr) refused = spare_.exchange(nullptr);
    if (refused != nullptr) refused->Finish(std::move(status));
    return refused;
  }

 private:
  class Refused final : public Reactor {
   public:
    explicit Refused(RefusedStreams& owner) : owner_(owner) {}
    void OnDone() override {
      RefusedStreams& owner = owner_;
      // As new: a reactor serves one call.
      this->~Refused();
      auto* const unused = new (static_cast<void*>(this)) Refused(owner);
      Refused* none = nullptr;
      if (!owner.spare_.compare_exchange_strong(none, unused)) delete unused;
    }

   private:
    RefusedStreams& owner_;
  };

  std::atomic<Refused*> spare_;
};

}  // namespace attnd::server
