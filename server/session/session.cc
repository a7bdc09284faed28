#include "server/session/session.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "contract/request.h"
#include "kernel/attention.h"
#include "memory/no_memory.h"
#include "server/attention/numbers.h"
#include "server/attention/shapes.h"
#include "server/attention/tensor_places.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"
#include "tensor/dtype.h"

namespace attnd::server {
namespace {

constexpr std::int64_t kAnyLength = std::numeric_limits<std::int64_t>::max();

absl::Status CheckEach(absl::string_view field, const Numbers& numbers, std::int64_t count, std::int64_t lowest,
                       std::int64_t highest) {
  return Refusal(contract::CheckEachSequence(field, SpanOf(numbers), count, lowest, highest));
}

std::size_t BitBytes(std::int64_t length) { return static_cast<std::size_t>((length + 7) / 8); }

absl::StatusOr<std::unique_ptr<cache::Sequences>> MakeKept(const std::optional<KeptSequences>& kept) {
  if (!kept.has_value()) return std::unique_ptr<cache::Sequences>();
  return cache::Sequences::Create(kept->pages, kept->sequences, kept->most_tokens);
}

absl::Status CheckNone(absl::string_view field, const TensorBytes& sent, bool shared, absl::string_view without) {
  if (sent.size == 0 && !shared) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("none without ", without),
                      shared ? "a place in shared memory" : absl::StrCat(sent.size, " bytes"));
}

const v1::SharedTensor* IfShared(bool has, const v1::SharedTensor& tensor) { return has ? &tensor : nullptr; }

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Create(SessionShape shape, const Limits& limits,
                                                         const SharedMemory* memory, std::int64_t max_sent_bytes) {
  ATTND_ASSIGN_OR_RETURN(std::unique_ptr<cache::Sequences> self, MakeKept(shape.self));
  ATTND_ASSIGN_OR_RETURN(std::unique_ptr<cache::Sequences> cross, MakeKept(shape.cross));
  return std::unique_ptr<Session>(
      new Session(std::move(shape), limits, memory, max_sent_bytes, std::move(self), std::move(cross)));
}

Session::Session(SessionShape shape, const Limits& limits, const SharedMemory* memory, std::int64_t max_sent_bytes,
                 std::unique_ptr<cache::Sequences> self, std::unique_ptr<cache::Sequences> cross)
    : shape_(std::move(shape)),
      limits_(limits),
      memory_(memory),
      max_sent_bytes_(max_sent_bytes),
      self_(std::move(self)),
      cross_(std::move(cross)) {
  marks_.row_sources = shape_.row_sources;
  marks_.key_starts.assign(static_cast<std::size_t>(shape_.rows), 0);
}

absl::StatusOr<std::optional<ValidAttention>> Session::Begin(const v1::SessionStep& step,
                                                             const RequestTensors& tensors) {
  std::optional<ValidAttention> attention;
  const absl::Status begun = memory::CatchNoMemory([&] {
    marks_before_ = marks_;
    ATTND_ASSIGN_OR_RETURN(attention, Prepare(step, tensors));
    return absl::OkStatus();
  });
  if (begun.ok()) return attention;
  if (step_ != 0) End(false);
  return begun;
}

absl::StatusOr<std::optional<ValidAttention>> Session::Prepare(const v1::SessionStep& step,
                                                               const RequestTensors& tensors) {
  ATTND_RETURN_IF_ERROR(CheckStep(step));
  step_ = step.step();  // from here on, a failure rolls back
  const bool again = step.step() == last_step_;
  if (!again) {
    Change(step);
    ATTND_RETURN_IF_ERROR(CheckLengths(step));
    ATTND_RETURN_IF_ERROR(Append(step, tensors));
  }
  last_layer_ = step.layer();
  if (step.query_length() > 0) {
    ATTND_ASSIGN_OR_RETURN(ValidAttention attention, Attend(step, tensors));
    return std::optional(std::move(attention));
  }
  ATTND_RETURN_IF_ERROR(CheckNone("q", tensors.q, step.has_q_shared(), "query_length"));
  ATTND_RETURN_IF_ERROR(CheckNone("output_shared", {}, step.has_output_shared(), "query_length"));
  ATTND_RETURN_IF_ERROR(CheckNone("log_sum_exp_shared", {}, step.has_log_sum_exp_shared(), "query_length"));
  return std::optional<ValidAttention>();
}

// Checks the fields against the session's last step and shape.
absl::Status Session::CheckStep(const v1::SessionStep& step) const {
  if (step.step() != last_step_ + 1 && (step.step() != last_step_ || last_step_ == 0)) {
    return FieldError(
        absl::StatusCode::kFailedPrecondition, "step",
        last_step_ == 0 ? "1, the first one" : absl::StrCat(last_step_ + 1, ", or ", last_step_, " again"),
        absl::StrCat(step.step()));
  }
  ATTND_RETURN_IF_ERROR(
      Refusal(contract::CheckRange("layer", step.layer(), 0, static_cast<std::int64_t>(shape_.layers.size()) - 1)));
  const SessionLayer& layer = LayerOf(step.layer());
  const std::int64_t sequences = KeptBy(layer).sequences();
  ATTND_RETURN_IF_ERROR(CheckEach("reorder", step.reorder(), shape_.rows, 0, shape_.rows - 1));
  ATTND_RETURN_IF_ERROR(CheckEach("truncate", step.truncate(), shape_.rows, 0, kAnyLength));
  ATTND_RETURN_IF_ERROR(CheckEach("key_starts", step.key_starts(), shape_.rows, 0, contract::kMaxPosition));
  if (step.expected_lengths_size() != 1) {
    ATTND_RETURN_IF_ERROR(CheckEach("expected_lengths", step.expected_lengths(), sequences, 0, kAnyLength));
  }
  if (self_ == nullptr && !(step.truncate().empty() && step.key_starts().empty())) {
    return InvalidField(step.truncate().empty() ? "key_starts" : "truncate", "none without self layers", "some");
  }
  if (!step.key_bits().empty() || step.key_bits_length() != 0) {
    if (cross_ == nullptr) return InvalidField("key_bits", "none without cross layers", "some");
    ATTND_RETURN_IF_ERROR(
        Refusal(contract::CheckRange("key_bits_length", step.key_bits_length(), 1, cross_->most_tokens())));
    const std::size_t expected = static_cast<std::size_t>(shape_.sources) * BitBytes(step.key_bits_length());
    if (step.key_bits().size() != expected) {
      return InvalidField("key_bits",
                          absl::StrCat(expected, " bytes (", shape_.sources, " sources, a bit for each of ",
                                       step.key_bits_length(), " tokens)"),
                          absl::StrCat(step.key_bits().size(), " bytes"));
    }
  }
  ATTND_RETURN_IF_ERROR(Refusal(contract::CheckRange("key_length", step.key_length(), 0, limits_.max_dim)));
  ATTND_RETURN_IF_ERROR(Refusal(contract::CheckRange("query_length", step.query_length(), 0, limits_.max_dim)));
  ATTND_RETURN_IF_ERROR(CheckEach("key_lengths", step.key_lengths(), sequences, 0, step.key_length()));
  ATTND_RETURN_IF_ERROR(CheckEach("query_lengths", step.query_lengths(), shape_.rows, 0, step.query_length()));
  if (step.quiet() && step.query_length() > 0) return InvalidField("quiet", "false for a step with queries", "true");
  return CheckLayout(step.layout());
}

// Applies reorder, truncate, key_starts and key_bits.
void Session::Change(const v1::SessionStep& step) {
  if (!step.reorder().empty()) {
    std::vector<std::int32_t> from(step.reorder().begin(), step.reorder().end());
    if (self_ != nullptr) self_->Gather(from);
    for (std::size_t row = 0; row < from.size(); ++row) {
      const auto source = static_cast<std::size_t>(from[row]);
      marks_.key_starts[row] = marks_before_.key_starts[source];
      if (!marks_.row_sources.empty()) marks_.row_sources[row] = marks_before_.row_sources[source];
    }
  }
  for (int row = 0; row < step.truncate_size(); ++row) self_->Truncate(row, step.truncate(row));
  if (!step.key_starts().empty()) marks_.key_starts.assign(step.key_starts().begin(), step.key_starts().end());
  if (!step.key_bits().empty()) {
    const auto* bits = reinterpret_cast<const std::byte*>(step.key_bits().data());
    marks_.key_bits.assign(bits, bits + step.key_bits().size());
    marks_.key_bits_length = step.key_bits_length();
  }
}

absl::Status Session::CheckLengths(const v1::SessionStep& step) const {
  const SessionLayer& layer = LayerOf(step.layer());
  const cache::Sequences& kept = KeptBy(layer);
  const int given = step.expected_lengths_size();
  for (std::int64_t s = 0; given > 0 && s < kept.sequences(); ++s) {
    const std::int64_t expected = step.expected_lengths(given == 1 ? 0 : static_cast<int>(s));
    const std::int64_t length = kept.length(layer.place, s);
    if (expected == length) continue;
    return FieldError(absl::StatusCode::kFailedPrecondition,
                      given == 1 ? "expected_lengths" : absl::StrCat("expected_lengths[", s, "]"),
                      absl::StrCat(length, " (what ", layer.is_self ? "row " : "source ", s, " has)"),
                      absl::StrCat(expected));
  }
  return absl::OkStatus();
}

absl::Status Session::Append(const v1::SessionStep& step, const RequestTensors& tensors) {
  const SessionLayer& layer = LayerOf(step.layer());
  cache::Sequences& kept = KeptBy(layer);
  if (step.key_length() == 0) {
    ATTND_RETURN_IF_ERROR(CheckNone("k", tensors.k, step.has_k_shared(), "key_length"));
    return CheckNone("v", tensors.v, step.has_v_shared(), "key_length");
  }
  kernel::Attention types{};
  ATTND_RETURN_IF_ERROR(SetDtypes(step.dtype(), step.output_dtype(), step.product_precision(), types).status());
  const std::int64_t sequences = kept.sequences();
  std::vector<std::int64_t> counts(step.key_lengths().begin(), step.key_lengths().end());
  if (counts.empty()) counts.assign(static_cast<std::size_t>(sequences), step.key_length());
  for (std::int64_t s = 0; s < sequences; ++s) {
    const std::int64_t room = kept.most_tokens() - kept.length(layer.place, s);
    const std::int64_t count = counts[static_cast<std::size_t>(s)];
    if (count <= room) continue;
    return FieldError(absl::StatusCode::kOutOfRange,
                      step.key_lengths().empty() ? "key_length" : absl::StrCat("key_lengths[", s, "]"),
                      absl::StrCat("at most ", room, " (", layer.is_self ? "row " : "source ", s, " may have ",
                                   kept.most_tokens(), " tokens)"),
                      absl::StrCat(count));
  }
  const Shape k{sequences, layer.kept.kv_heads, step.key_length(), layer.kept.head_dim};
  const Shape v{sequences, layer.kept.kv_heads, step.key_length(), layer.kept.value_head_dim};
  std::shared_ptr<SharedParts> shared;  // keeps the regions until their bytes are copied
  TensorPlaces places(step.layout(), memory_, shared);
  ATTND_RETURN_IF_ERROR(
      places.Set("k", tensors.k, IfShared(step.has_k_shared(), step.k_shared()), &SharedParts::k, k, types.k));
  ATTND_RETURN_IF_ERROR(
      places.Set("v", tensors.v, IfShared(step.has_v_shared(), step.v_shared()), &SharedParts::v, v, types.v));
  return kept.Append(layer.place, counts, types.k, types.v);
}

absl::StatusOr<ValidAttention> Session::Attend(const v1::SessionStep& step, const RequestTensors& tensors) {
  const SessionLayer& layer = LayerOf(step.layer());
  const cache::Sequences& kept = KeptBy(layer);
  ValidAttention valid{};
  kernel::Attention& a = valid.attention;
  a.batch = shape_.rows;
  a.heads = layer.heads;
  a.kv_heads = layer.kept.kv_heads;
  a.query_length = step.query_length();
  a.head_dim = layer.kept.head_dim;
  a.value_head_dim = layer.kept.value_head_dim;
  a.scale = layer.scale;
  a.mask = layer.is_self ? kernel::Mask::kCausal : kernel::Mask::kNone;
  valid.bias = layer.bias;
  ATTND_ASSIGN_OR_RETURN(valid.output_dtype, SetDtypes(step.dtype(), step.output_dtype(), step.product_precision(), a));
  TensorPlaces places(step.layout(), memory_, valid.shared);
  ATTND_RETURN_IF_ERROR(places.Set("q", tensors.q, IfShared(step.has_q_shared(), step.q_shared()), &SharedParts::q,
                                   {a.batch, a.heads, a.query_length, a.head_dim}, a.q));
  ATTND_ASSIGN_OR_RETURN(const ResultBytes result, SetResult(step.layout(), step.return_log_sum_exp(), limits_,
                                                             {a.batch, a.heads, a.query_length, a.value_head_dim}, a));
  valid.output_bytes = result.output;
  valid.log_sum_exp_bytes = result.log_sum_exp;
  if (step.has_output_shared()) ATTND_RETURN_IF_ERROR(places.SetOutput(step.output_shared(), result.output));
  if (step.has_log_sum_exp_shared()) {
    ATTND_RETURN_IF_ERROR(places.SetLogSumExp(step.log_sum_exp_shared(), result.log_sum_exp));
  }
  ATTND_RETURN_IF_ERROR(CheckSent(valid, max_sent_bytes_));

  const auto rows = static_cast<std::size_t>(shape_.rows);
  lists_.resize(rows);
  key_lengths_.resize(rows);
  query_offsets_.resize(rows);
  query_lengths_.assign(step.query_lengths().begin(), step.query_lengths().end());
  query_lengths_.resize(rows, step.query_length());
  a.key_length = 1;
  for (std::size_t row = 0; row < rows; ++row) {
    const std::int64_t s = layer.is_self ? static_cast<std::int64_t>(row) : marks_.row_sources[row];
    lists_[row] = kept.PagesOf(s);
    key_lengths_[row] = kept.length(layer.place, s);
    query_offsets_[row] = key_lengths_[row] - query_lengths_[row];
    a.key_length = std::max(a.key_length, key_lengths_[row]);
  }
  a.k = kept.shape().Keys(layer.place, lists_.data());
  a.v = kept.shape().Values(layer.place, lists_.data());
  a.key_lengths = key_lengths_.data();
  a.query_lengths = query_lengths_.data();
  a.query_offsets = query_offsets_.data();
  if (layer.is_self) {
    a.key_starts = marks_.key_starts.data();
  } else if (marks_.key_bits_length > 0) {
    PointToKeyBits(a);
  }
  return valid;
}

// Sets the key bits of each row: those of its source, followed by ones for tokens beyond those given.
void Session::PointToKeyBits(kernel::Attention& attention) {
  const std::size_t row_bytes = BitBytes(attention.key_length);
  const std::size_t given_bytes = BitBytes(marks_.key_bits_length);
  row_bits_.assign(row_bytes * static_cast<std::size_t>(attention.batch), std::byte{0xff});
  for (std::size_t row = 0; row < static_cast<std::size_t>(attention.batch); ++row) {
    const std::byte* from = marks_.key_bits.data() + static_cast<std::size_t>(marks_.row_sources[row]) * given_bytes;
    std::byte* const to = row_bits_.data() + row * row_bytes;
    std::copy_n(from, std::min(row_bytes, given_bytes), to);
    if (given_bytes <= row_bytes && marks_.key_bits_length % 8 != 0) {
      to[given_bytes - 1] |= std::byte{0xff} << (marks_.key_bits_length % 8);
    }
  }
  attention.key_bits = row_bits_.data();
}

void Session::End(bool ok) {
  for (cache::Sequences* kept : {self_.get(), cross_.get()}) {
    if (kept == nullptr) continue;
    if (ok) {
      kept->Commit();
    } else {
      kept->Rollback();
    }
  }
  if (ok) {
    last_step_ = step_;
  } else {
    std::swap(marks_, marks_before_);
  }
  step_ = 0;
}

void Session::Describe(v1::SessionStepResult& result) const {
  const SessionLayer& layer = LayerOf(last_layer_);
  const cache::Sequences& kept = KeptBy(layer);
  for (std::int64_t s = 0; s < kept.sequences(); ++s) result.add_lengths(kept.length(layer.place, s));
  result.set_used_bytes(used_bytes());
}

std::int64_t Session::BytesToCopy(const v1::SessionStep& step) const {
  if (step.layer() < 0 || step.layer() >= static_cast<std::int64_t>(shape_.layers.size())) return 0;
  const SessionLayer& layer = LayerOf(step.layer());
  const double tokens = static_cast<double>(step.key_length()) * static_cast<double>(KeptBy(layer).sequences());
  const double values = tokens * static_cast<double>(layer.kept.kv_heads) *
                        static_cast<double>(layer.kept.head_dim + layer.kept.value_head_dim);
  double bytes = values * sizeof(float);
  const auto rows = static_cast<double>(shape_.rows);
  if (self_ != nullptr && step.key_length() > 0 && layer.is_self) {
    // Pages that rows share are copied before they are written, for all layers.
    const double shared = step.reorder().empty() ? static_cast<double>(self_->SharedLastPages()) : rows;
    bytes += shared * static_cast<double>(self_->shape().bytes());
  }
  // After a reorder or truncation, an append looks for each row's page in the previous page lists of all rows.
  if (!step.reorder().empty() || !step.truncate().empty()) bytes += rows * rows / 16;
  constexpr double kMost = 1e18;  // fits 63 bits
  return static_cast<std::int64_t>(std::clamp(bytes, 0.0, kMost));
}

std::int64_t Session::used_bytes() const {
  std::int64_t bytes = 0;
  for (const cache::Sequences* kept : {self_.get(), cross_.get()}) {
    if (kept != nullptr) bytes += kept->bytes_in_use();
  }
  return bytes;
}

}  // namespace attnd::server
