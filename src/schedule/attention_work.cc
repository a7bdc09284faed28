#include "schedule/attention_work.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "kernel/kernel.h"
#include "kernel/visible.h"
#include "schedule/arena.h"
#include "schedule/attention_plan.h"

namespace attnd::schedule {
namespace {

using kernel::Attention;
using kernel::Kernel;
using kernel::PackedHead;
using kernel::RowTile;

constexpr std::size_t kAlignment = 64;
std::size_t Aligned(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

struct FreeAligned {
  void operator()(std::byte* block) const { ::operator delete[](block, std::align_val_t{kAlignment}); }
};

// What a unit's items share.
struct Unit {
  PackedHead packed{};             // kShared
  std::byte* values = nullptr;     // kShared, if they are packed
  float* partials = nullptr;       // of its splits
  std::int64_t first_waiting = 0;  // items unlocked when `left` comes to 0
  std::int64_t last_waiting = 0;
  std::atomic<std::int64_t> left{0};
};

class AttentionWork final : public Work {
 public:
  AttentionWork(const Attention& attention, const Kernel& kernel)
      : a_(attention), kernel_(kernel), plan_(PlanAttention(a_, kernel)), units_(new Unit[plan_.units.size()]) {
    for (std::size_t i = 0; i < plan_.items.size(); ++i) {
      const PlannedItem& item = plan_.items[i];
      Unit& unit = units_[static_cast<std::size_t>(item.unit)];
      if (item.step == Step::kTile || item.step == Step::kMerge) {
        if (unit.last_waiting == 0) unit.first_waiting = static_cast<std::int64_t>(i);
        unit.last_waiting = static_cast<std::int64_t>(i) + 1;
      } else {
        unit.left.fetch_add(1, std::memory_order_relaxed);
        initial_.push_back({static_cast<std::int64_t>(i), item.cost});
      }
    }
  }

  // Memory for packed keys and values and for partial results.
  bool Allocate() {
    std::size_t bytes = 0;
    ForEachArray([&bytes](std::byte** /*pointer*/, std::size_t size) { bytes += Aligned(size); });
    if (bytes == 0) return true;
    block_.reset(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{kAlignment}, std::nothrow)));
    if (block_ == nullptr) return false;
    std::byte* at = block_.get();
    ForEachArray([&at](std::byte** pointer, std::size_t size) {
      *pointer = at;
      at += Aligned(size);
    });
    for (std::size_t u = 0; u < plan_.units.size(); ++u) {
      Unit& unit = units_[u];
      unit.packed.values_data = unit.values != nullptr ? unit.values : plan_.units[u].values;
    }
    return true;
  }

  std::int64_t item_count() const override { return static_cast<std::int64_t>(plan_.items.size()); }
  absl::Span<const Item> initial_items() const override { return initial_; }

  void Run(std::int64_t id, Arena& arena, absl::FunctionRef<void(Item)> ready) override {
    const PlannedItem& item = plan_.items[static_cast<std::size_t>(id)];
    switch (item.step) {
      case Step::kUnits:
        for (std::int64_t u = item.first; u < item.last; ++u) RunUnit(u, arena);
        return;
      case Step::kSplit:
        RunSplit(item, arena);
        break;
      case Step::kPackKeys:
        kernel_.pack_keys(a_, Batch(item.unit), KvHead(item.unit), item.first, item.last, UnitOf(item).packed,
                          arena.Get(kernel_.scratch_bytes(a_)));
        if (item.first == PlanOf(item.unit).first_key) ClearUnusedRows(item.unit);
        break;
      case Step::kPackValues:
        kernel_.pack_values(
            a_, Batch(item.unit), KvHead(item.unit), item.first, item.last,
            UnitOf(item).values + kernel_.packed_value_bytes(a_, item.first - PlanOf(item.unit).first_key),
            arena.Get(kernel_.scratch_bytes(a_)));
        break;
      case Step::kMerge:
        kernel_.merge(a_, Batch(item.unit), KvHead(item.unit), UnitOf(item).partials, PlanOf(item.unit).splits);
        ClearUnusedRows(item.unit);
        return;
      case Step::kTile:
        RunTile(item, arena);
        return;
    }
    Unit& unit = UnitOf(item);
    if (unit.left.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    for (std::int64_t i = unit.first_waiting; i < unit.last_waiting; ++i) {
      ready({i, plan_.items[static_cast<std::size_t>(i)].cost});
    }
  }

 private:
  Unit& UnitOf(const PlannedItem& item) { return units_[static_cast<std::size_t>(item.unit)]; }
  const UnitPlan& PlanOf(std::int64_t unit) const { return plan_.units[static_cast<std::size_t>(unit)]; }
  std::int64_t Batch(std::int64_t unit) const { return unit / a_.kv_heads; }
  std::int64_t KvHead(std::int64_t unit) const { return unit % a_.kv_heads; }
  std::int64_t FirstHead(std::int64_t unit) const { return KvHead(unit) * plan_.group; }
  std::int64_t Queries(std::int64_t unit) const { return kernel::QueryLength(a_, Batch(unit)); }

  template <typename Visit>
  void ForEachArray(const Visit& visit) {
    for (std::size_t u = 0; u < plan_.units.size(); ++u) {
      const UnitPlan& plan = plan_.units[u];
      Unit& unit = units_[u];
      if (plan.way == Way::kShared) {
        unit.packed.first_key = plan.first_key;
        unit.packed.keys = plan.keys;
        visit(&unit.packed.keys_data, kernel_.packed_key_bytes(a_, plan.keys));
        if (plan.values == nullptr) visit(&unit.values, kernel_.packed_value_bytes(a_, plan.keys));
      } else if (plan.splits > 1) {
        visit(reinterpret_cast<std::byte**>(&unit.partials),
              PartialBytes(plan) * static_cast<std::size_t>(plan.splits));
      }
    }
  }

  std::size_t PartialBytes(const UnitPlan& plan) const {
    return static_cast<std::size_t>(plan.rows * kernel::PartialFloats(a_)) * sizeof(float);
  }

  void ClearUnusedRows(std::int64_t u) {
    if (Queries(u) == a_.query_length) return;
    for (std::int64_t h = 0; h < plan_.group; ++h) {
      kernel_.clear(a_, Batch(u), FirstHead(u) + h, Queries(u), a_.query_length);
    }
  }

  // What this thread will probably read after unit `u`: with so many running at once, the next one that is left.
  kernel::Ahead AfterUnit(std::int64_t u) const {
    const std::int64_t next = u + running_.load(std::memory_order_relaxed);
    if (next >= static_cast<std::int64_t>(plan_.units.size())) return {};
    return {
        {RowsOf(a_.k, DataOf(a_.k), Batch(next), KvHead(next), PlanOf(next).first_key, PlanOf(next).keys, a_.head_dim),
         RowsOf(a_.q, DataOf(a_.q), Batch(next), FirstHead(next), 0, Queries(next), a_.head_dim),
         RowsOf(a_.v, DataOf(a_.v), Batch(next), KvHead(next), PlanOf(next).first_key, PlanOf(next).keys,
                a_.value_head_dim)}};
  }

  // What it will probably read and write after a tile: of those left, the longer tiles of a head come first.
  kernel::Ahead AfterTile(const PlannedItem& item) const {
    const std::int64_t row = item.first - running_.load(std::memory_order_relaxed) * kernel_.query_tile;
    if (row < 0) return {};
    const std::int64_t b = Batch(item.unit);
    return {{RowsOf(a_.q, DataOf(a_.q), b, item.head, row, kernel_.query_tile, a_.head_dim),
             RowsOf(a_.out, a_.out.data, b, item.head, row, kernel_.query_tile, a_.value_head_dim)}};
  }

  static const std::byte* DataOf(const kernel::TensorView& view) {
    return view.segment_count == 1 ? view.segments[0].data : nullptr;
  }

  // The bytes of some rows of a head; none if there is no data, the rows do not lie together or are many.
  template <typename View>
  static kernel::Ahead::Range RowsOf(const View& view, const std::byte* data, std::int64_t b, std::int64_t head,
                                     std::int64_t row, std::int64_t rows, std::int64_t dim) {
    constexpr std::int64_t kMostBytes = 1 << 17;
    const auto size = static_cast<std::int64_t>(tensor::SizeOf(view.dtype));
    if (data == nullptr || view.row_stride != dim || rows * dim * size > kMostBytes) return {};
    const std::byte* at = data + (b * view.batch_stride + head * view.head_stride + row * view.row_stride) * size;
    return {at, at + rows * dim * size};
  }

  // A whole unit, into the output.
  void RunUnit(std::int64_t u, Arena& arena) {
    const UnitPlan& plan = plan_.units[static_cast<std::size_t>(u)];
    ClearUnusedRows(u);
    switch (plan.way) {
      case Way::kNothing:
        for (std::int64_t h = 0; h < plan_.group; ++h) {
          kernel_.clear(a_, Batch(u), FirstHead(u) + h, 0, Queries(u));
        }
        return;
      case Way::kDirect: {
        std::byte* scratch = arena.Get(Aligned(PartialBytes(plan)) + kernel_.direct_scratch_bytes(a_));
        float* partial = reinterpret_cast<float*>(scratch);
        kernel_.direct(a_, Batch(u), KvHead(u), plan.first_key, plan.first_key + plan.keys, partial,
                       scratch + Aligned(PartialBytes(plan)));
        kernel_.merge(a_, Batch(u), KvHead(u), partial, 1);
        return;
      }
      default:
        RunLocal(u, plan.first_key, plan.first_key + plan.keys, nullptr, arena);
    }
  }

  void RunSplit(const PlannedItem& item, Arena& arena) {
    const UnitPlan& plan = PlanOf(item.unit);
    float* partial = UnitOf(item).partials +
                     (item.first - plan.first_key) / plan.split_keys * (plan.rows * kernel::PartialFloats(a_));
    if (plan.way == Way::kDirect) {
      kernel_.direct(a_, Batch(item.unit), KvHead(item.unit), item.first, item.last, partial,
                     arena.Get(kernel_.direct_scratch_bytes(a_)));
    } else {
      RunLocal(item.unit, item.first, item.last, partial, arena);
    }
  }

  // Calls visit(tile, index) for every tile of rows of a unit.
  template <typename Visit>
  void ForEachTile(std::int64_t u, const Visit& visit) const {
    std::int64_t index = 0;
    for (std::int64_t h = 0; h < plan_.group; ++h) {
      for (std::int64_t row = 0; row < Queries(u); row += kernel_.query_tile) {
        visit(RowTile{Batch(u), FirstHead(u) + h, row, std::min(kernel_.query_tile, Queries(u) - row)}, index++);
      }
    }
  }

  // All rows of a unit over the keys [first, last), packed block by block; into the output if `partial` is null.
  void RunLocal(std::int64_t u, std::int64_t first, std::int64_t last, float* partial, Arena& arena) {
    const std::int64_t block_keys = std::min(plan_.local_keys, last - first);
    const std::size_t state_bytes = kernel_.state_bytes(a_);
    const std::size_t key_bytes = Aligned(kernel_.packed_key_bytes(a_, block_keys));
    const std::size_t value_bytes = Aligned(kernel_.packed_value_bytes(a_, block_keys));
    std::int64_t tiles = 0;
    ForEachTile(u, [&](const RowTile&, std::int64_t) { ++tiles; });

    std::byte* scratch = arena.Get(kernel_.scratch_bytes(a_) + key_bytes + value_bytes +
                                   static_cast<std::size_t>(tiles) * state_bytes + kAlignment);
    std::byte* keys = scratch + Aligned(kernel_.scratch_bytes(a_));
    std::byte* values = keys + key_bytes;
    const auto state = [&](std::int64_t index) {
      return values + value_bytes + static_cast<std::size_t>(index) * state_bytes;
    };

    running_.fetch_add(1, std::memory_order_relaxed);
    kernel::Ahead ahead = AfterUnit(u);
    ForEachTile(u, [&](const RowTile& tile, std::int64_t i) { kernel_.begin(a_, tile, state(i), scratch); });
    for (std::int64_t key = first; key < last; key += block_keys) {
      const std::int64_t end = std::min(last, key + block_keys);
      PackedHead packed{keys, kernel_.values_in_place(a_, Batch(u), KvHead(u), key, end), key, end - key};
      kernel_.pack_keys(a_, Batch(u), KvHead(u), key, end, packed, scratch);
      if (packed.values_data == nullptr) {
        kernel_.pack_values(a_, Batch(u), KvHead(u), key, end, values, scratch);
        packed.values_data = values;
      }
      ForEachTile(u, [&](const RowTile& tile, std::int64_t i) {
        kernel_.advance(a_, tile, packed, key, end, ahead, state(i), scratch);
      });
    }
    running_.fetch_sub(1, std::memory_order_relaxed);
    ForEachTile(u, [&](const RowTile& tile, std::int64_t i) {
      if (partial == nullptr) {
        kernel_.finish(a_, tile, state(i));
        return;
      }
      const std::int64_t row = (tile.head - FirstHead(u)) * Queries(u) + tile.first_row;
      kernel_.save(a_, tile, state(i), partial + row * kernel::PartialFloats(a_));
    });
  }

  void RunTile(const PlannedItem& item, Arena& arena) {
    const std::size_t state_bytes = Aligned(kernel_.state_bytes(a_));
    std::byte* state = arena.Get(state_bytes + kernel_.scratch_bytes(a_));
    std::byte* scratch = state + state_bytes;
    const RowTile tile{Batch(item.unit), item.head, item.first, item.last - item.first};
    const PackedHead& packed = UnitOf(item).packed;
    kernel_.begin(a_, tile, state, scratch);
    running_.fetch_add(1, std::memory_order_relaxed);
    kernel::Ahead ahead = AfterTile(item);
    kernel_.advance(a_, tile, packed, packed.first_key, packed.first_key + packed.keys, ahead, state, scratch);
    running_.fetch_sub(1, std::memory_order_relaxed);
    kernel_.finish(a_, tile, state);
  }

  const Attention a_;
  const Kernel& kernel_;
  const AttentionPlan plan_;
  const std::unique_ptr<Unit[]> units_;
  std::vector<Item> initial_;
  std::atomic<std::int64_t> running_{0};  // threads that compute whole units, or tiles
  std::unique_ptr<std::byte[], FreeAligned> block_;
};

}  // namespace

std::unique_ptr<Work> MakeAttentionWork(const Attention& attention, const Kernel& kernel) {
  auto work = std::make_unique<AttentionWork>(attention, kernel);
  if (!work->Allocate()) return nullptr;
  return work;
}

}  // namespace attnd::schedule
