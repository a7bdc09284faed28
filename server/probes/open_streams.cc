#include "server/probes/open_streams.h"

namespace attnd::server {

void OpenStreams::Add(OpenStream* stream) {
  absl::MutexLock lock(&mutex_);
  streams_.insert(stream);
  if (ended_) stream->End();
}

void OpenStreams::Remove(OpenStream* stream) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(stream);
}

void OpenStreams::EndAll(absl::Duration patience) {
  absl::MutexLock lock(&mutex_);
  ended_ = true;
  for (OpenStream* const stream : streams_) stream->End();
  const auto empty = +[](std::unordered_set<OpenStream*>* streams) { return streams->empty(); };
  if (mutex_.AwaitWithTimeout(absl::Condition(empty, &streams_), patience)) return;
  for (OpenStream* const stream : streams_) stream->Cancel();
}

}  // namespace attnd::server
