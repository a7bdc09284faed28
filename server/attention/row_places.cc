#include "server/attention/row_places.h"

#include <algorithm>
#include <cstddef>

#include "absl/types/span.h"
#include "contract/request.h"
#include "server/attention/numbers.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

using Request = v1::ComputeAttentionRequest;

// Checks that no other field that distinguishes keys or positions is set.
absl::Status CheckAlone(const Request& r) {
  const auto count = [](const auto& list) { return static_cast<std::size_t>(list.size()); };
  return Refusal(contract::CheckBesideSegments({.query_offset = r.has_query_offset() ? 1U : 0U,
                                                .query_offsets = count(r.query_offsets()),
                                                .query_lengths = count(r.query_lengths()),
                                                .key_lengths = count(r.key_lengths()),
                                                .key_starts = count(r.key_starts()),
                                                .key_bits = count(r.key_bits()),
                                                .prefix_lengths = count(r.prefix_lengths()),
                                                .key_bias = count(r.key_bias()),
                                                .kv_rows = count(r.kv_rows())}));
}

// Appends the length of each sequence to `to`; the sequences begin at `starts` in rows of `length`. Returns the
// longest.
std::int64_t SetLengths(absl::Span<const std::int64_t> starts, std::int64_t length, std::vector<std::int64_t>& to) {
  std::int64_t longest = 0;
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const std::int64_t row_end = (starts[i] / length + 1) * length;
    const std::int64_t end = i + 1 < starts.size() ? std::min(starts[i + 1], row_end) : row_end;
    to.push_back(end - starts[i]);
    longest = std::max(longest, to.back());
  }
  return longest;
}

template <typename View>
void SetStarts(absl::Span<const std::int64_t> starts, std::int64_t length, View& view, std::vector<std::int64_t>& to) {
  for (const std::int64_t start : starts) {
    to.push_back(start / length * view.batch_stride + start % length * view.row_stride);
  }
  view.starts = to.data();
}

absl::Status PlaceSegments(const Request& request, kernel::Attention& a, RowPlaces& places) {
  ATTND_RETURN_IF_ERROR(CheckAlone(request));
  const absl::Span<const std::int64_t> queries = SpanOf(request.query_segments());
  const absl::Span<const std::int64_t> keys = request.key_segments().empty() ? queries : SpanOf(request.key_segments());
  const std::int64_t query_length = a.query_length, key_length = a.key_length;
  for (std::vector<std::int64_t>* list : {&places.query_lengths, &places.key_lengths, &places.query_offsets, &places.q,
                                          &places.k, &places.v, &places.out, &places.log_sum_exp}) {
    list->reserve(queries.size());
  }
  SetStarts(queries, query_length, a.q, places.q);
  SetStarts(queries, query_length, a.out, places.out);
  SetStarts(keys, key_length, a.k, places.k);
  SetStarts(keys, key_length, a.v, places.v);
  for (const std::int64_t start : queries) {
    places.log_sum_exp.push_back(start / query_length * a.heads * query_length + start % query_length);
  }
  a.log_sum_exp_starts = places.log_sum_exp.data();
  a.log_sum_exp_stride = query_length;
  a.batch = static_cast<std::int64_t>(queries.size());
  a.query_length = SetLengths(queries, query_length, places.query_lengths);
  a.key_length = SetLengths(keys, key_length, places.key_lengths);
  for (std::size_t i = 0; i < queries.size(); ++i) {
    places.query_offsets.push_back(places.key_lengths[i] - places.query_lengths[i]);
  }
  a.query_lengths = places.query_lengths.data();
  a.key_lengths = places.key_lengths.data();
  a.query_offsets = places.query_offsets.data();
  return absl::OkStatus();
}

}  // namespace

std::int64_t PlacesBytes(const Request& request) {
  constexpr std::int64_t kOfSegment = 8 * sizeof(std::int64_t), kOfRow = 2 * sizeof(std::int64_t);
  return request.query_segments_size() * kOfSegment + request.kv_rows_size() * kOfRow;
}

absl::Status PlaceRows(const Request& request, kernel::Attention& a, RowPlaces& places) {
  ATTND_RETURN_IF_ERROR(Refusal(contract::CheckSegments(
      SpanOf(request.query_segments()), SpanOf(request.key_segments()), a.batch, a.query_length, a.key_length)));
  if (!request.query_segments().empty()) return PlaceSegments(request, a, places);
  const std::int64_t kv_batch = request.kv_batch() == 0 ? a.batch : request.kv_batch();
  ATTND_RETURN_IF_ERROR(Refusal(contract::CheckKvRows(SpanOf(request.kv_rows()), kv_batch, a.batch)));
  if (request.kv_rows().empty()) return absl::OkStatus();
  for (std::vector<std::int64_t>* list : {&places.k, &places.v}) list->reserve(static_cast<std::size_t>(a.batch));
  for (const std::int64_t row : request.kv_rows()) {
    places.k.push_back(row * a.k.batch_stride);
    places.v.push_back(row * a.v.batch_stride);
  }
  a.k.starts = places.k.data();
  a.v.starts = places.v.data();
  return absl::OkStatus();
}

}  // namespace attnd::server
