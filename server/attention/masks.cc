#include "server/attention/masks.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "contract/request.h"
#include "server/attention/numbers.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

using Request = v1::ComputeAttentionRequest;

const std::int64_t* DataOf(const Numbers& numbers) { return numbers.empty() ? nullptr : numbers.data(); }

// query_lengths, key_lengths or key_starts.
absl::Status SetLengths(absl::string_view field, const Numbers& lengths, std::int64_t batch, std::int64_t longest,
                        const std::int64_t*& out) {
  out = DataOf(lengths);
  return Refusal(contract::CheckLengths(field, SpanOf(lengths), batch, longest));
}

absl::Status SetOffsets(const Request& request, kernel::Attention& a) {
  a.query_offset = request.has_query_offset() ? request.query_offset() : a.key_length - a.query_length;
  a.query_offsets = DataOf(request.query_offsets());
  ATTND_RETURN_IF_ERROR(Refusal(contract::CheckQueryOffset(a.query_offset, a.query_length)));
  return Refusal(contract::CheckQueryOffsets(SpanOf(request.query_offsets()), request.has_query_offset(), a.batch,
                                             a.query_length));
}

absl::Status SetKeyBits(const Request& request, kernel::Attention& a) {
  const std::string& bits = request.key_bits();
  a.key_bits = bits.empty() ? nullptr : reinterpret_cast<const std::byte*>(bits.data());
  return Refusal(contract::CheckKeyBits(bits.size(), a.batch, a.key_length));
}

absl::Status SetWindow(const Request& request, kernel::Attention& a) {
  const auto set = [](absl::string_view field, std::optional<std::int64_t> distance, std::int64_t& to) {
    if (distance.has_value()) to = *distance;
    return Refusal(contract::CheckWindow(field, distance));
  };
  const auto given = [](bool has, std::int64_t value) { return has ? std::optional(value) : std::nullopt; };
  ATTND_RETURN_IF_ERROR(set("window_left", given(request.has_window_left(), request.window_left()), a.left));
  return set("window_right", given(request.has_window_right(), request.window_right()), a.right);
}

absl::Status SetPrefixLengths(const Request& request, kernel::Attention& a) {
  a.prefix_lengths = DataOf(request.prefix_lengths());
  return Refusal(contract::CheckPrefixLengths(SpanOf(request.prefix_lengths()), a.mask == kernel::Mask::kCausal,
                                              a.batch, a.key_length));
}

absl::Status SetKeyBias(const Request& request, kernel::Attention& a) {
  const auto& bias = request.key_bias();
  a.key_bias = bias.empty() ? nullptr : bias.data();
  return Refusal(contract::CheckKeyBias({bias.data(), static_cast<std::size_t>(bias.size())}, a.heads, a.key_length));
}

}  // namespace

absl::Status SetMask(const Request& request, kernel::Mask of_table, kernel::Attention& attention) {
  switch (request.mask()) {
    case v1::MASK_UNSPECIFIED:
      attention.mask = of_table;
      return absl::OkStatus();
    case v1::MASK_CAUSAL:
      attention.mask = kernel::Mask::kCausal;
      return absl::OkStatus();
    case v1::MASK_NONE:
      attention.mask = kernel::Mask::kNone;
      return absl::OkStatus();
    default:
      return InvalidField("mask", "MASK_CAUSAL, MASK_NONE or unset", static_cast<int>(request.mask()));
  }
}

absl::Status SetSequences(const Request& request, kernel::Attention& a) {
  ATTND_RETURN_IF_ERROR(SetOffsets(request, a));
  ATTND_RETURN_IF_ERROR(SetLengths("query_lengths", request.query_lengths(), a.batch, a.query_length, a.query_lengths));
  ATTND_RETURN_IF_ERROR(SetLengths("key_lengths", request.key_lengths(), a.batch, a.key_length, a.key_lengths));
  ATTND_RETURN_IF_ERROR(SetLengths("key_starts", request.key_starts(), a.batch, a.key_length, a.key_starts));
  ATTND_RETURN_IF_ERROR(SetKeyBits(request, a));
  ATTND_RETURN_IF_ERROR(SetWindow(request, a));
  ATTND_RETURN_IF_ERROR(SetPrefixLengths(request, a));
  return SetKeyBias(request, a);
}

}  // namespace attnd::server
