// Memory for the pages of one owner, and the users of each page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

namespace attnd::cache {

// Pages of one size in a memory mapping of their own. The system provides the memory when a page is first written,
// zeroed, in huge pages if the mapping has at least 2 MiB. The destructor returns the whole mapping at once. So no page
// can be lost, and no page shows what another owner wrote.
//
// A page has users of two kinds. Readers see its current contents; keepers hold on to its contents before a change that
// may be rolled back. A page with neither is free. Thread-compatible.
class PagePool {
 public:
  // Maps reservation::PoolBytes. Errors: RESOURCE_EXHAUSTED if the system cannot map that much.
  static absl::StatusOr<std::unique_ptr<PagePool>> Create(std::int64_t page_bytes, std::int64_t pages);
  ~PagePool();
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // Returns a free page with one reader and with its old contents; null if no page is free. May throw std::bad_alloc,
  // and has then taken nothing.
  std::byte* Take();
  void AddReader(const std::byte* page) { ++UseOf(page).readers; }
  void RemoveReader(const std::byte* page);
  // The keeper holds on to the first `rows` rows of the page.
  void AddKeeper(const std::byte* page, std::int64_t rows);
  void RemoveKeeper(const std::byte* page);

  std::int32_t readers(const std::byte* page) const { return UseOf(page).readers; }
  std::int64_t kept_rows(const std::byte* page) const { return UseOf(page).kept_rows; }  // by any keeper

  std::int64_t page_bytes() const { return page_bytes_; }
  std::int64_t pages() const { return pages_; }
  std::int64_t used() const { return fresh_ - static_cast<std::int64_t>(free_.size()); }  // pages that have a user

 private:
  struct Use {
    std::int32_t readers = 0;
    std::int32_t keepers = 0;
    std::int64_t kept_rows = 0;
  };
  PagePool(std::byte* memory, std::size_t mapped, std::int64_t page_bytes, std::int64_t pages)
      : memory_(memory), mapped_(mapped), page_bytes_(page_bytes), pages_(pages) {}

  std::size_t IndexOf(const std::byte* page) const { return static_cast<std::size_t>((page - memory_) / page_bytes_); }
  const Use& UseOf(const std::byte* page) const { return uses_[IndexOf(page)]; }
  Use& UseOf(const std::byte* page) { return uses_[IndexOf(page)]; }
  void FreeIfUnused(const std::byte* page);

  std::byte* const memory_;
  const std::size_t mapped_;
  const std::int64_t page_bytes_;
  const std::int64_t pages_;
  std::int64_t fresh_ = 0;          // pages from this index on have never been used
  std::vector<Use> uses_;           // of the pages below fresh_
  std::vector<std::int64_t> free_;  // of the pages below fresh_; has room for all of them
};

}  // namespace attnd::cache
