#include "server/serving/closing.h"

#include <system_error>

#include "absl/strings/str_cat.h"

namespace attnd::server {

Closing::~Closing() {
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&mutex_);
    unneeded_ = !begun_;
    begun_ = true;
  }
  thread_.join();
}

absl::Status Closing::Start(grpc::Server& server) {
  try {
    thread_ = std::thread([this, &server] { Run(server); });
  } catch (const std::system_error& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot start the thread that closes connections: ", error.what()));
  }
  return absl::OkStatus();
}

void Closing::Begin() {
  absl::MutexLock lock(&mutex_);
  begun_ = true;
}

bool Closing::done() const {
  absl::MutexLock lock(&mutex_);
  return done_;
}

void Closing::Await() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&done_));
}

void Closing::Run(grpc::Server& server) {
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&begun_));
    if (unneeded_) return;
  }
  server.Shutdown();
  absl::MutexLock lock(&mutex_);
  done_ = true;
}

}  // namespace attnd::server
