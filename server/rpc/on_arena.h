// A message that survives a lack of memory.
#pragma once

#include <array>
#include <cstddef>

#include "google/protobuf/arena.h"

namespace attnd::server {

// A Message on its own arena. A protobuf message does not survive an allocation in it that throws: a oneof or a list
// may be left with an element that was never constructed, which the message's destructor then destroys, and an
// unfinished copy leaks. On an arena no destructor runs, and everything is freed with the arena. As thread-safe as the
// message.
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

  // Size of the arena in bytes: at least what the message uses.
  std::size_t allocated_bytes() const { return arena_.SpaceAllocated(); }

 private:
  alignas(std::max_align_t) std::array<char, 1024> first_;  // enough for a small call
  google::protobuf::Arena arena_;
  Message& message_;
};

}  // namespace attnd::server
