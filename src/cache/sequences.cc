#include "cache/sequences.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cache/row_copy.h"
#include "reservation/page_bytes.h"

namespace attnd::cache {
namespace {

std::int64_t PagesFor(std::int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// Offset of a head's row in a page, in bytes.
std::int64_t RowInPage(const kernel::TensorView& view, std::int64_t head, std::int64_t row) {
  return (view.page_begin + head * view.head_stride + row * view.row_stride) * ElementSize(view.dtype);
}

}  // namespace

// Writes rows of the tensors of one Append into pages.
class LayerWriter {
 public:
  LayerWriter(const PageShape& shape, std::int64_t layer, const kernel::TensorView& k, const kernel::TensorView& v)
      : layer_(shape.layer(layer)),
        keys_(shape.Keys(layer, nullptr)),
        values_(shape.Values(layer, nullptr)),
        k_(k, layer_.head_dim, shape.dtype()),
        v_(v, layer_.value_head_dim, shape.dtype()) {}

  // Copies rows [row, row + rows) of a sequence to the page's rows from `to` on.
  void Write(std::int64_t sequence, std::int64_t row, std::int64_t rows, std::byte* page, std::int64_t to) {
    for (std::int64_t head = 0; head < layer_.kv_heads; ++head) {
      k_.Copy(sequence, head, row, rows, page + RowInPage(keys_, head, to));
      v_.Copy(sequence, head, row, rows, page + RowInPage(values_, head, to));
    }
  }

 private:
  const LayerShape& layer_;
  const kernel::TensorView keys_, values_;
  RowCopier k_, v_;
};

absl::StatusOr<std::unique_ptr<Sequences>> Sequences::Create(PageShape shape, std::int64_t sequences,
                                                             std::int64_t most_tokens) {
  const std::optional<std::int64_t> pages = reservation::MostPages(sequences, most_tokens);
  if (!pages.has_value()) {
    return absl::ResourceExhaustedError(absl::StrCat("no room for ", sequences, " sequences of ", most_tokens));
  }
  absl::StatusOr<std::unique_ptr<PagePool>> pool = PagePool::Create(shape.bytes(), *pages);
  if (!pool.ok()) return std::move(pool).status();
  return std::unique_ptr<Sequences>(new Sequences(std::move(shape), sequences, most_tokens, *std::move(pool)));
}

Sequences::Sequences(PageShape shape, std::int64_t sequences, std::int64_t most_tokens, std::unique_ptr<PagePool> pool)
    : shape_(std::move(shape)),
      sequences_(sequences),
      most_tokens_(most_tokens),
      pool_(std::move(pool)),
      lists_(static_cast<std::size_t>(sequences)),
      lengths_(static_cast<std::size_t>(shape_.layers() * sequences)),
      kept_lengths_(lengths_) {}

absl::Status Sequences::Append(std::int64_t layer, absl::Span<const std::int64_t> counts, const kernel::TensorView& k,
                               const kernel::TensorView& v) {
  LayerWriter writer(shape_, layer, k, v);
  for (std::int64_t s = 0; s < sequences_; ++s) {
    absl::Status appended = AppendTo(layer, s, counts[static_cast<std::size_t>(s)], writer);
    if (!appended.ok()) return appended;
  }
  return absl::OkStatus();
}

absl::Status Sequences::AppendTo(std::int64_t layer, std::int64_t sequence, std::int64_t count, LayerWriter& writer) {
  std::int32_t& length = lengths_[PlaceOf(layer, sequence)];
  if (count > most_tokens_ - length) {
    return absl::OutOfRangeError(absl::StrCat("sequence ", sequence, " has ", length, " tokens and would get ", count,
                                              " more, of at most ", most_tokens_));
  }
  for (std::int64_t row = 0; row < count;) {
    const std::int64_t in_page = length % kPageTokens;
    const std::int64_t rows = std::min(count - row, kPageTokens - in_page);
    std::byte* const page = PageToWrite(layer, sequence, length);
    if (page == nullptr)
      return absl::ResourceExhaustedError(
          "no page is left beside those that are kept in case that the step fails; in two steps there is");
    writer.Write(sequence, row, rows, page, in_page);
    row += rows;
    length += static_cast<std::int32_t>(rows);
  }
  return absl::OkStatus();
}

std::int64_t Sequences::SharedLastPages() const {
  return std::count_if(lists_.begin(), lists_.end(),
                       [this](const List& list) { return !list.empty() && pool_->readers(list.back()) > 1; });
}

// Whether some sequence had, as of the last Commit, tokens of `layer` in `page` at row `row` or later. A page has the
// same number in all lists.
bool Sequences::IsKeptFrom(std::int64_t layer, const std::byte* page, std::int64_t number, std::int64_t row) const {
  if (row >= pool_->kept_rows(page)) return false;  // in any layer
  for (std::size_t s = 0; s < kept_lists_.size(); ++s) {
    const List& list = kept_lists_[s];
    if (static_cast<std::size_t>(number) >= list.size() || list[static_cast<std::size_t>(number)] != page) continue;
    const std::int64_t tokens = kept_lengths_[PlaceOf(layer, static_cast<std::int64_t>(s))];
    if (tokens > number * kPageTokens + row) return true;
  }
  return false;
}

// The page to write a sequence's token of a layer to. It belongs to this sequence alone, and nothing in it from that
// token on has to be kept. Null if no page is left.
std::byte* Sequences::PageToWrite(std::int64_t layer, std::int64_t sequence, std::int64_t token) {
  List& list = lists_[static_cast<std::size_t>(sequence)];
  const std::int64_t page = token / kPageTokens;
  if (page == static_cast<std::int64_t>(list.size())) {
    list.push_back(nullptr);
    list.pop_back();  // has reserved room for it
    std::byte* const fresh = pool_->Take();
    if (fresh != nullptr) list.push_back(fresh);
    return fresh;
  }
  const std::byte*& own = list[static_cast<std::size_t>(page)];
  if (pool_->readers(own) > 1 || IsKeptFrom(layer, own, page, token % kPageTokens)) {
    std::byte* const copy = pool_->Take();
    if (copy == nullptr) return nullptr;
    CopyTokens(sequence, page, own, copy);
    pool_->RemoveReader(own);
    own = copy;
  }
  return const_cast<std::byte*>(own);
}

// Copies a sequence's tokens of one page, in all layers.
void Sequences::CopyTokens(std::int64_t sequence, std::int64_t page, const std::byte* from, std::byte* to) const {
  for (std::int64_t layer = 0; layer < shape_.layers(); ++layer) {
    const std::int64_t rows = std::min(kPageTokens, length(layer, sequence) - page * kPageTokens);
    if (rows <= 0) continue;
    for (const kernel::TensorView& view : {shape_.Keys(layer, nullptr), shape_.Values(layer, nullptr)}) {
      const std::int64_t bytes = rows * view.row_stride * ElementSize(view.dtype);
      for (std::int64_t head = 0; head < shape_.layer(layer).kv_heads; ++head) {
        const std::int64_t at = RowInPage(view, head, 0);
        std::memcpy(to + at, from + at, static_cast<std::size_t>(bytes));
      }
    }
  }
}

// Number of pages that a sequence of these lengths has.
std::int64_t Sequences::PageCount(const std::vector<std::int32_t>& lengths, std::int64_t sequence) const {
  std::int64_t most = 0;
  for (std::int64_t layer = 0; layer < shape_.layers(); ++layer) {
    most = std::max<std::int64_t>(most, lengths[PlaceOf(layer, sequence)]);
  }
  return PagesFor(most);
}

void Sequences::Gather(absl::Span<const std::int32_t> from) {
  std::vector<List> lists(lists_.size());
  std::vector<std::int32_t> lengths(lengths_.size());
  for (std::size_t s = 0; s < lists.size(); ++s) {
    const auto source = static_cast<std::size_t>(from[s]);
    lists[s] = lists_[source];
    for (std::size_t layer = 0; layer < lengths.size(); layer += lists.size()) {
      lengths[layer + s] = lengths_[layer + source];
    }
  }
  KeepLists();
  for (const List& list : lists) {
    for (const std::byte* page : list) pool_->AddReader(page);
  }
  for (List& list : lists_) Release(list, 0);
  lists_ = std::move(lists);
  lengths_ = std::move(lengths);
}

void Sequences::Truncate(std::int64_t sequence, std::int64_t tokens) {
  tokens = std::min(tokens, most_tokens_);
  KeepLists();
  for (std::int64_t layer = 0; layer < shape_.layers(); ++layer) {
    std::int32_t& length = lengths_[PlaceOf(layer, sequence)];
    length = static_cast<std::int32_t>(std::min<std::int64_t>(length, tokens));
  }
  Release(lists_[static_cast<std::size_t>(sequence)], static_cast<std::size_t>(PagesFor(tokens)));
}

// Keeps the lists as of the last Commit. Called before lists change other than by growing. Does not keep what has been
// appended since the last Commit.
void Sequences::KeepLists() {
  if (!kept_lists_.empty()) return;
  std::vector<List> kept = lists_;
  for (std::int64_t s = 0; s < sequences_; ++s) {
    List& list = kept[static_cast<std::size_t>(s)];
    list.resize(static_cast<std::size_t>(PageCount(kept_lengths_, s)));
    for (std::size_t page = 0; page < list.size(); ++page) {
      std::int64_t rows = 0;
      for (std::int64_t layer = 0; layer < shape_.layers(); ++layer) {
        const std::int64_t tokens = kept_lengths_[PlaceOf(layer, s)];
        rows = std::max(rows, std::min(kPageTokens, tokens - static_cast<std::int64_t>(page) * kPageTokens));
      }
      pool_->AddKeeper(list[page], rows);
    }
  }
  kept_lists_ = std::move(kept);
}

// Removes all but the first `pages` pages of a list.
void Sequences::Release(List& list, std::size_t pages) {
  while (list.size() > pages) {
    pool_->RemoveReader(list.back());
    list.pop_back();
  }
}

void Sequences::Commit() {
  ForgetKept();
  kept_lengths_ = lengths_;
}

void Sequences::Rollback() {
  lengths_ = kept_lengths_;
  if (kept_lists_.empty()) {
    for (std::int64_t s = 0; s < sequences_; ++s) {
      Release(lists_[static_cast<std::size_t>(s)], static_cast<std::size_t>(PageCount(lengths_, s)));
    }
    return;
  }
  for (const List& list : kept_lists_) {
    for (const std::byte* page : list) pool_->AddReader(page);
  }
  for (List& list : lists_) Release(list, 0);
  for (std::size_t s = 0; s < lists_.size(); ++s) lists_[s].swap(kept_lists_[s]);  // lists_[s] was empty
  for (const List& list : lists_) {
    for (const std::byte* page : list) pool_->RemoveKeeper(page);
  }
  kept_lists_.clear();
}

void Sequences::ForgetKept() {
  for (const List& list : kept_lists_) {
    for (const std::byte* page : list) pool_->RemoveKeeper(page);
  }
  kept_lists_.clear();
}

}  // namespace attnd::cache
