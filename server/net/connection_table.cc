#include "server/net/connection_table.h"

#include <sys/stat.h>

#include <iterator>

namespace attnd::server {
namespace {

constexpr int kShareOfAThread = 20;

}  // namespace

void ConnectionTable::Add(int fd) {
  struct stat socket;
  if (fstat(fd, &socket) == 0) sockets_[fd] = {socket.st_dev, socket.st_ino};
}

void ConnectionTable::Sweep() {
  const auto start = std::chrono::steady_clock::now();
  if (start < next_sweep_) return;
  for (auto entry = sockets_.begin(); entry != sockets_.end();) {
    struct stat now;
    const bool open = fstat(entry->first, &now) == 0 && Identity(now.st_dev, now.st_ino) == entry->second;
    entry = open ? std::next(entry) : sockets_.erase(entry);
  }
  const auto end = std::chrono::steady_clock::now();
  next_sweep_ = end + (end - start) * kShareOfAThread;
}

}  // namespace attnd::server
