// Keys and values of some sequences, which grow, are reordered and share what they have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cache/page_pool.h"
#include "cache/page_shape.h"
#include "kernel/attention.h"

namespace attnd::cache {

class LayerWriter;

// Each sequence is a list of pages. Sequences that were one have pages in common; a page that several have is copied
// before one of them writes to it, as far as it is filled.
//
// Changes take effect at once and are made for good by Commit; Rollback takes back all since the last Commit, to the
// bit. Where a change fails, or throws std::bad_alloc, Rollback must follow. Thread-compatible: while a kernel reads,
// nothing may change.
class Sequences {
 public:
  // Empty ones. reservation::BytesOfKept says what they take, from a budget before this. Errors: RESOURCE_EXHAUSTED if
  // the system has no room for them.
  static absl::StatusOr<std::unique_ptr<Sequences>> Create(PageShape shape, std::int64_t sequences,
                                                           std::int64_t most_tokens);

  // Writes tokens behind those that sequences have in a layer: `counts[s]` >= 0 for sequence s, the first rows of
  // k [sequences, kv_heads, tokens, head_dim] and v [sequences, kv_heads, tokens, value_head_dim], which have segments
  // and may have any dtype. Errors: OUT_OF_RANGE, naming the sequence, if it would have more than most_tokens;
  // RESOURCE_EXHAUSTED if there is no page left, which cannot be unless the same change has dropped or gathered, and
  // appends more than a page: what was there before is kept for Rollback.
  absl::Status Append(std::int64_t layer, absl::Span<const std::int64_t> counts, const kernel::TensorView& k,
                      const kernel::TensorView& v);

  // Sequence s becomes what from[s] is, in all layers. One may be named by several or by none.
  void Gather(absl::Span<const std::int32_t> from);

  // Leaves a sequence its first `tokens` tokens in all layers; fewer where it has fewer.
  void Truncate(std::int64_t sequence, std::int64_t tokens);

  void Commit();
  void Rollback();

  std::int64_t length(std::int64_t layer, std::int64_t sequence) const { return lengths_[PlaceOf(layer, sequence)]; }

  // The list of a sequence's pages, as kernels take it. Until the next change; a sequence without tokens may have null.
  const std::byte* const* PagesOf(std::int64_t sequence) const { return ListOf(sequence).data(); }

  // How many sequences have a last page that others have too: so many an append to all of them may copy.
  std::int64_t SharedLastPages() const;

  const PageShape& shape() const { return shape_; }
  std::int64_t sequences() const { return sequences_; }
  std::int64_t most_tokens() const { return most_tokens_; }
  std::int64_t pages_in_use() const { return pool_->used(); }
  std::int64_t bytes_in_use() const { return pool_->used() * shape_.bytes(); }

 private:
  using List = std::vector<const std::byte*>;

  Sequences(PageShape shape, std::int64_t sequences, std::int64_t most_tokens, std::unique_ptr<PagePool> pool);

  std::size_t PlaceOf(std::int64_t layer, std::int64_t sequence) const {
    return static_cast<std::size_t>(layer * sequences_ + sequence);
  }
  const List& ListOf(std::int64_t sequence) const { return lists_[static_cast<std::size_t>(sequence)]; }
  std::int64_t PageCount(const std::vector<std::int32_t>& lengths, std::int64_t sequence) const;
  absl::Status AppendTo(std::int64_t layer, std::int64_t sequence, std::int64_t count, LayerWriter& writer);
  bool IsKeptFrom(std::int64_t layer, const std::byte* page, std::int64_t number, std::int64_t row) const;
  std::byte* PageToWrite(std::int64_t layer, std::int64_t sequence, std::int64_t token);
  void CopyTokens(std::int64_t sequence, std::int64_t page, const std::byte* from, std::byte* to) const;
  void KeepLists();
  void ForgetKept();
  void Release(List& list, std::size_t pages);

  const PageShape shape_;
  const std::int64_t sequences_;
  const std::int64_t most_tokens_;
  const std::unique_ptr<PagePool> pool_;
  std::vector<List> lists_;            // [sequences]
  std::vector<std::int32_t> lengths_;  // [layers, sequences]

  // As of the last commit. The lists are empty if those above have only grown since.
  std::vector<List> kept_lists_;
  std::vector<std::int32_t> kept_lengths_;
};

}  // namespace attnd::cache
