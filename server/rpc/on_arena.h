// A message whose memory may run out.
#pragma once

#include <array>
#include <cstddef>

#include "google/protobuf/arena.h"

namespace attnd::server {

// A Message on an arena of its own. protobuf's messages do not survive an allocation within them that throws: a oneof
// or a list may be left with an element that was never made, which the message's destructor then destroys, and a copy
// that is not finished loses what it has. On an arena no destructor runs, and what was made goes with the arena. As
// thread-safe as the message.
template <typename Message>
class OnArena {
 public:
  OnArena()
      : arena_(first_.data(), first_.size()), message_(*google::protobuf::Arena::CreateMessage<Message>(&arena_)) {}
  OnArena(const OnArena&) = delete;
  OnArena& operator=(const OnArena&) = delete;

  Message& operator*() { return message_; }
  const Message& operator*() const { return message_; }
  Message* operator->() { return &message_; }
  const Message* operator->() const { return &message_; }

  // Of the arena, in bytes: never less than the message has in use.
  std::size_t allocated_bytes() const { return arena_.SpaceAllocated(); }

 private:
  alignas(std::max_align_t) std::array<char, 1024> first_;  // enough for a small call
  google::protobuf::Arena arena_;
  Message& message_;
};

}  // namespace attnd::server
