#include "server/net/connection_table.h"

#include <sys/stat.h>

#include <iterator>

namespace attnd::server {
namespace {

constexpr int kShareOfAThread = 20;

}  // namespace

void ConnectionTable::Add(int fd, const std::string& peer) {
  struct stat status;
  if (fstat(fd, &status) != 0) return;
  const auto [count, is_new_peer] = peers_.try_emplace(peer);
  const auto [entry, is_new] = sockets_.try_emplace(fd);  // if this throws, only a peer without sockets remains
  ++count->second;  // first: the socket that had this number may have been the same peer's only one
  if (!is_new) CountOut(entry->second);
  entry->second = {{status.st_dev, status.st_ino}, &*count};
}

std::size_t ConnectionTable::CountOf(const std::string& peer) const {
  const auto count = peers_.find(peer);
  return count == peers_.end() ? 0 : count->second;
}

void ConnectionTable::CountOut(const Socket& socket) {
  if (--socket.peer->second == 0) peers_.erase(socket.peer->first);
}

void ConnectionTable::Sweep() {
  const auto start = std::chrono::steady_clock::now();
  if (start < next_sweep_) return;
  for (auto entry = sockets_.begin(); entry != sockets_.end();) {
    struct stat now;
    const bool open = fstat(entry->first, &now) == 0 && Identity(now.st_dev, now.st_ino) == entry->second.identity;
    if (!open) CountOut(entry->second);
    entry = open ? std::next(entry) : sockets_.erase(entry);
  }
  const auto end = std::chrono::steady_clock::now();
  next_sweep_ = end + (end - start) * kShareOfAThread;
}

}  // namespace attnd::server
