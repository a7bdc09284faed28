#include "client/src/local_session.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attnd/error_detail.h"
#include "attnd/shm/mapping.h"
#include "attnd/shm/unique_fd.h"
#include "client/src/local_session_messages.h"
#include "client/src/local_socket.h"
#include "client/src/process.h"
#include "client/src/shared_memory.h"

namespace attnd::client {
namespace {

using Clock = LocalSocket::Clock;
using Until = LocalSocket::Until;

// With more sequences, a message with a number for each in every field may not fit into a datagram.
constexpr std::int64_t kMaxSequences = 1024;

// Upper bound of the bytes of a reply for each row or source: its length.
constexpr std::size_t kBytesOfLength = 10;

constexpr std::size_t kPartAlignment = 64;

// The first region only checks that the server shares memory. Sizes of later regions are multiples of kRegionUnit.
constexpr std::size_t kFirstRegionBytes = 4096;
constexpr std::size_t kRegionUnit = std::size_t{256} << 10;

std::size_t Up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

Until UntilOf(absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return std::nullopt;
  return Clock::now() +
         absl::ToChronoNanoseconds(std::clamp(deadline - absl::Now(), absl::ZeroDuration(), absl::Hours(24 * 365)));
}

// Memory registered with the server.
struct Region {
  void* data = nullptr;
  std::size_t size = 0;
  shm::Handle handle{};

  Region() = default;
  Region(Region&& other) noexcept { *this = std::move(other); }
  Region& operator=(Region&& other) noexcept {
    std::swap(data, other.data);
    std::swap(size, other.size);
    std::swap(handle, other.handle);
    return *this;
  }
  ~Region() {
    if (data != nullptr) munmap(data, size);
  }
};

class LocalSession final : public SessionStream {
 public:
  LocalSession(std::unique_ptr<LocalSocket> socket, const std::shared_ptr<Cancellation>& cancellation,
               const SessionRequest& request)
      : socket_(std::move(socket)),
        guard_(cancellation, *socket_),
        largest_(socket_->largest()),
        beside_results_(kBesideResults +
                        kBytesOfLength * static_cast<std::size_t>(std::max(request.rows, request.sources))) {}

  Transport transport() const override { return Transport::kLocal; }
  const absl::Status& ended() const override { return ended_; }
  void SetDeadline(absl::Time deadline) override { until_ = UntilOf(deadline); }
  absl::Status SendOpening(const SessionRequest& request) override { return Send(EncodeLocalOpening(request)); }
  absl::Status SendStep(const StepRequest& request, const StepSizes& sizes, std::uint64_t number) override;
  absl::StatusOr<SessionAnswer> Receive() override;
  void End(const absl::Status& status) override;
  absl::Status Close() override;

  // Whether the server shares memory with this session. An error may end the session.
  bool SharesMemory() { return Grow(1).ok(); }

  // Whether a message of this size fits into a datagram.
  bool Fits(std::size_t bytes) const { return bytes <= largest_; }

  // Called in a forked child instead of the destructor.
  void Abandon() { socket_->CloseCopy(); }

 private:
  // A tensor in the region.
  struct Place {
    std::size_t offset, bytes;
  };

  absl::Status Send(const std::string& message) {
    const iovec part{const_cast<char*>(message.data()), message.size()};
    return Send(absl::MakeConstSpan(&part, 1), message.size());
  }
  absl::Status Send(absl::Span<const iovec> parts, std::size_t bytes);
  // Makes the region at least this large. Errors: RESOURCE_EXHAUSTED, after which the region is unchanged, and those
  // that end the session.
  absl::Status Grow(std::size_t bytes);
  // Places q, k and v (`inputs`), the results (`results`) or both in the region, where they do not fit into datagrams.
  absl::Status PlaceTensors(const StepRequest& request, const StepSizes& sizes, bool inputs, bool results,
                            v1::SessionStep& step);
  // Copies the last step's results out of the region.
  absl::Status TakeResults(SessionAnswer& answer);
  // Ends the session because its connection failed with `status`. Returns the session's error.
  absl::Status Lose(const absl::Status& status);
  // The server's message about the session's end, if it has arrived.
  std::optional<absl::Status> LastWord();

  const std::unique_ptr<LocalSocket> socket_;
  CancelGuard guard_;
  const std::size_t largest_, beside_results_;
  Region region_;
  // Of the last step sent.
  DType output_dtype_ = DType::kFp32;
  std::optional<Place> output_, log_sum_exp_;
  Until until_;
  absl::Status ended_;
};

absl::Status LocalSession::Send(absl::Span<const iovec> parts, std::size_t bytes) {
  switch (socket_->Send(parts, until_)) {
    case Delivery::kDone:
      return absl::OkStatus();
    case Delivery::kNotYet:
      return Lose(absl::DeadlineExceededError(""));
    case Delivery::kTooLarge:
      return absl::ResourceExhaustedError(absl::StrCat("the system has no memory for a datagram of ", bytes, " bytes"));
    case Delivery::kBroken:
      break;
  }
  return Lose(absl::UnavailableError("the connection to the server was lost: it was closed"));
}

absl::Status LocalSession::Lose(const absl::Status& status) {
  if (guard_.cancelled()) {
    End(absl::CancelledError("CANCELLED"));  // gRPC's message
  } else if (status.code() == absl::StatusCode::kDeadlineExceeded) {
    End(absl::DeadlineExceededError("the server did not answer in time"));
  } else if (status.code() == absl::StatusCode::kUnavailable && !socket_->silent()) {
    End(LastWord().value_or(status));
  } else {
    End(status);
  }
  return ended_;
}

std::optional<absl::Status> LocalSession::LastWord() {
  // A connection that was closed with unread bytes reports an error once, and then returns what arrived before.
  for (int errors = 0; errors < 2;) {
    const absl::StatusOr<absl::Span<const unsigned char>> datagram = socket_->Receive(Clock::now());
    if (!datagram.ok()) {
      ++errors;
      continue;
    }
    const absl::StatusOr<LocalSessionReply> reply = DecodeLocalReply(*datagram);
    if (!reply.ok()) break;
    if (reply->end.has_value() && !reply->end->ok()) return reply->end;
  }
  return std::nullopt;
}

void LocalSession::End(const absl::Status& status) {
  ended_ = status;
  socket_->Interrupt();
  region_ = Region();
}

absl::Status LocalSession::Grow(std::size_t bytes) {
  if (bytes <= region_.size) return absl::OkStatus();
  const auto refused = [](absl::string_view why) { return absl::ResourceExhaustedError(why); };
  Region region;
  region.size = bytes <= kFirstRegionBytes ? kFirstRegionBytes : Up(bytes, kRegionUnit);
  const shm::UniqueFd memory = MakeSharedMemory(region.size);
  if (!memory.valid()) return refused(std::strerror(errno));
  void* const data = shm::Map(memory.get(), region.size, MAP_POPULATE);
  if (data == MAP_FAILED) return refused(std::strerror(errno));
  region.data = data;
  const absl::StatusOr<shm::Reply> reply = socket_->Register(memory.get(), region.size, until_);
  if (!reply.ok()) return Lose(reply.status());
  if (reply->code != 0) return refused({reply->message, strnlen(reply->message, sizeof(reply->message))});
  region.handle = reply->handle;
  std::swap(region_, region);
  if (region.data != nullptr) socket_->Release(region.handle);  // releases the previous region
  return absl::OkStatus();
}

absl::Status LocalSession::PlaceTensors(const StepRequest& request, const StepSizes& sizes, bool inputs, bool results,
                                        v1::SessionStep& step) {
  struct Part {
    const char* name;
    const void* data;  // null for results
    std::size_t bytes;
    v1::SharedTensor* (v1::SessionStep::*field)();
    std::optional<Place>* place;
  };
  std::vector<Part> parts;
  if (inputs) {
    using Step = v1::SessionStep;
    const auto fields = {&Step::mutable_q_shared, &Step::mutable_k_shared, &Step::mutable_v_shared};
    const auto* field = fields.begin();
    for (const StepTensor& tensor : TensorsOf(request, sizes)) {
      if (tensor.bytes > 0) {
        parts.push_back({tensor.name, tensor.view.data, static_cast<std::size_t>(tensor.bytes), *field, nullptr});
      }
      ++field;
    }
  }
  if (results) {
    parts.push_back(
        {"output", nullptr, static_cast<std::size_t>(sizes.output), &v1::SessionStep::mutable_output_shared, &output_});
    if (request.return_log_sum_exp) {
      parts.push_back({"log_sum_exp", nullptr, static_cast<std::size_t>(sizes.log_sum_exp),
                       &v1::SessionStep::mutable_log_sum_exp_shared, &log_sum_exp_});
    }
  }
  std::size_t needed = 0;
  for (const Part& part : parts) needed += Up(part.bytes, kPartAlignment);
  if (const absl::Status grown = Grow(needed); !grown.ok()) {
    if (!ended_.ok()) return ended_;
    const auto largest =
        std::max_element(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.bytes < b.bytes; });
    return ErrorWithDetail(
        absl::StatusCode::kResourceExhausted,
        {largest->name, absl::StrCat("what fits into a datagram of ", largest_, " bytes, or memory to share"),
         absl::StrCat(largest->bytes, " bytes, and no memory: ", grown.message())});
  }
  std::size_t offset = 0;
  for (const Part& part : parts) {
    v1::SharedTensor& shared = *(step.*part.field)();
    shared.set_region(region_.handle.data(), region_.handle.size());
    shared.set_offset(offset);
    if (part.place != nullptr) *part.place = Place{offset, part.bytes};
    if (part.data != nullptr) std::memcpy(static_cast<unsigned char*>(region_.data) + offset, part.data, part.bytes);
    offset += Up(part.bytes, kPartAlignment);
  }
  return absl::OkStatus();
}

absl::Status LocalSession::SendStep(const StepRequest& request, const StepSizes& sizes, std::uint64_t number) {
  v1::SessionStep step = StepFields(request, number);
  const std::size_t fields = step.ByteSizeLong() + kBesideStep;
  const auto tensors = static_cast<std::size_t>(sizes.q + sizes.k + sizes.v);
  const bool place_inputs = fields + tensors > largest_;
  const auto results = static_cast<std::size_t>(sizes.output + sizes.log_sum_exp);
  const bool place_results = sizes.output > 0 && results + beside_results_ > socket_->offer().max_message_bytes;
  output_.reset();
  log_sum_exp_.reset();
  output_dtype_ = sizes.output_dtype;
  if (place_inputs || place_results) {
    if (auto s = FieldsTooLarge(fields, static_cast<std::int64_t>(largest_))) return *std::move(s);
    if (auto s = PlaceTensors(request, sizes, place_inputs, place_results, step); !s.ok()) return s;
  }
  LocalStep message(step, request, sizes);
  return Send(message.parts(), message.size());
}

absl::Status LocalSession::TakeResults(SessionAnswer& answer) {
  const auto* const region = static_cast<const unsigned char*>(region_.data);
  if (output_.has_value()) {
    absl::StatusOr<Tensor> output = CopyOutput(output_dtype_, region + output_->offset, output_->bytes);
    if (!output.ok()) return output.status();
    answer.reply.output = *std::move(output);
  }
  if (log_sum_exp_.has_value()) {
    answer.reply.log_sum_exp.resize(log_sum_exp_->bytes / sizeof(float));
    std::memcpy(answer.reply.log_sum_exp.data(), region + log_sum_exp_->offset, log_sum_exp_->bytes);
  }
  return absl::OkStatus();
}

absl::StatusOr<SessionAnswer> LocalSession::Receive() {
  const absl::StatusOr<absl::Span<const unsigned char>> datagram = socket_->Receive(until_);
  if (!datagram.ok()) return Lose(datagram.status());
  absl::StatusOr<LocalSessionReply> reply = DecodeLocalReply(*datagram);
  if (!reply.ok()) return reply.status();
  if (reply->end.has_value()) {
    End(!reply->end->ok() ? *reply->end : absl::InternalError("the server ended the session before it had answered"));
    return ended_;
  }
  if (reply->answer->step.has_value() && reply->answer->status.ok()) {
    if (auto s = TakeResults(*reply->answer); !s.ok()) return s;
  }
  return *std::move(reply->answer);
}

absl::Status LocalSession::Close() {
  absl::Status end = Send(EncodeLocalClose());
  while (end.ok()) {
    const absl::StatusOr<absl::Span<const unsigned char>> datagram = socket_->Receive(until_);
    const absl::StatusOr<LocalSessionReply> reply =
        datagram.ok() ? DecodeLocalReply(*datagram) : absl::StatusOr<LocalSessionReply>(Lose(datagram.status()));
    if (!reply.ok()) {
      end = reply.status();
    } else if (reply->end.has_value()) {
      end = *reply->end;
      break;
    }
  }
  End(absl::FailedPreconditionError("the session is closed"));
  return end;
}

}  // namespace

std::shared_ptr<SessionStream> ConnectLocalSession(LocalCalls& calls, const SessionRequest& request,
                                                   const CallOptions& options) {
  if (std::max(request.rows, request.sources) > kMaxSequences) return nullptr;
  std::unique_ptr<LocalSocket> socket = calls.Connect(options);
  if (socket == nullptr || !socket->offer().sessions) return nullptr;
  // In a forked child only the descriptor is closed: the session belongs to the parent.
  const std::shared_ptr<LocalSession> session(new LocalSession(std::move(socket), options.cancellation, request),
                                              [](LocalSession* s) {
                                                if (Forked()) {
                                                  s->Abandon();
                                                } else {
                                                  delete s;
                                                }
                                              });
  if (!session->Fits(EncodeLocalOpening(request).size())) return nullptr;
  // A mask of all sources must leave room for a step's other fields.
  const std::int64_t tokens = std::min<std::int64_t>(std::max<std::int64_t>(request.max_source_tokens, 0), 1 << 30);
  if (!session->Fits(static_cast<std::size_t>(2 * std::max<std::int64_t>(request.sources, 0) * ((tokens + 7) / 8))))
    return nullptr;
  session->SetDeadline(std::min(options.deadline, absl::Now() + absl::FromChrono(LocalCalls::kPatience)));
  if (!session->SharesMemory()) return nullptr;
  return session;
}

}  // namespace attnd::client
