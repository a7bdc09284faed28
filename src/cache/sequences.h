// The keys and values of some sequences, which grow, are reordered and share pages.
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

// Each sequence is a list of pages. Sequences that were gathered from the same sequence share pages. Before one of them
// writes to a shared page, the filled part of the page is copied.
//
// Changes take effect at once. Commit makes them permanent; Rollback undoes all changes since the last Commit, to the
// bit. After a change that fails, or throws std::bad_alloc, call Rollback. Thread-compatible: no change may run while a
// kernel reads.
class Sequences {
 public:
  // Creates empty sequences. Reserve reservation::BytesOfKept for them first. Errors: RESOURCE_EXHAUSTED if the system
  // has no room for them.
  static absl::StatusOr<std::unique_ptr<Sequences>> Create(PageShape shape, std::int64_t sequences,
                                                           std::int64_t most_tokens);

  // Appends tokens to the sequences in one layer: for sequence s the first `counts[s]` >= 0 rows of k [sequences,
  // kv_heads, tokens, head_dim] and v [sequences, kv_heads, tokens, value_head_dim], which have segments and any dtype.
  // Errors: OUT_OF_RANGE, naming the sequence, if it would have more than most_tokens; RESOURCE_EXHAUSTED if no page is
  // left. The latter is possible only if Truncate or Gather was called since the last Commit and more than a page is
  // appended, because the earlier contents are kept for Rollback.
  absl::Status Append(std::int64_t layer, absl::Span<const std::int64_t> counts, const kernel::TensorView& k,
                      const kernel::TensorView& v);

  // Sequence s becomes a copy of sequence from[s], in all layers. Several may name the same sequence, and some may be
  // named by none.
  void Gather(absl::Span<const std::int32_t> from);

  // Shortens a sequence to its first `tokens` tokens in all layers; shorter layers are unchanged.
  void Truncate(std::int64_t sequence, std::int64_t tokens);

  void Commit();
  void Rollback();

  std::int64_t length(std::int64_t layer, std::int64_t sequence) const { return lengths_[PlaceOf(layer, sequence)]; }

  // A sequence's list of pages, as kernels take it. Valid until the next change; may be null for an empty sequence.
  const std::byte* const* PagesOf(std::int64_t sequence) const { return ListOf(sequence).data(); }

  // Number of sequences whose last page is shared: an append to all sequences may have to copy this many pages.
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

  // As of the last Commit. kept_lists_ is empty if lists_ have only grown since.
  std::vector<List> kept_lists_;
  std::vector<std::int32_t> kept_lengths_;
};

}  // namespace attnd::cache
