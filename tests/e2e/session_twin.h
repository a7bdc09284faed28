// A session beside plain lists of tokens, which are sent whole to ComputeAttention.
#pragma once

#include <memory>

#include "attnd/v1/session.pb.h"
#include "session_support.h"

namespace attnd::e2e {

// What a session is to be, and random steps of both. Fails the test where they differ in a bit.
class Twin {
 public:
  Twin(SessionServer& server, Door door, const v1::SessionOpen& open, unsigned seed);
  ~Twin();
  Twin(const Twin&) = delete;
  Twin& operator=(const Twin&) = delete;

  Stream& stream();
  // A step that is right, or one that is wrong, cancelled or sent twice.
  void TakeStep();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace attnd::e2e
