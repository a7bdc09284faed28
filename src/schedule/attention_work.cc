#include "schedule/attention_work.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include "kernel/kernel.h"
#include "kernel/visible.h"
#include "schedule/arena.h"
#include "schedule/attention_items.h"
#include "schedule/rounding.h"

namespace attnd::schedule {
namespace {

using kernel::Attention;
using kernel::Kernel;
using kernel::PackedHead;
using kernel::RowTile;

struct FreeAligned {
  void operator()(std::byte* block) const { ::operator delete[](block, std::align_val_t{kAlignment}); }
};

// Calls `pause` each time items have cost kPauseCost.
class Pacer {
 public:
  explicit Pacer(Pause pause) : pause_(pause) {}

  // Returns false if the item was given up: return without finishing it.
  bool Spend(double cost) {
    spent_ += cost;
    if (spent_ < kPauseCost) return true;
    spent_ = 0;
    return pause_();
  }

 private:
  const Pause pause_;
  double spent_ = 0;
};

class AttentionWork final : public Work {
 public:
  // `block` has AttentionWorkBytes(plan) - sizeof(AttentionWork) bytes.
  AttentionWork(const Attention& attention, const AttentionPlan& plan, std::unique_ptr<std::byte[], FreeAligned> block)
      : a_(attention), kernel_(plan.kernel()), plan_(plan), block_(std::move(block)), items_(plan_, block_.get()) {
    slots_ = block_.get() + AttentionItems::Bytes(plan_);
  }

  double cost() const override {
    double sum = 0;
    for (const UnitClass& units : plan_.classes()) sum += static_cast<double>(units.units) * units.unit_cost;
    return sum;
  }
  std::optional<Item> Next() override { return items_.Next(); }
  std::int64_t ready() const override { return items_.ready(); }
  void Finish(const Item& item) override { items_.Finish(item); }

  void Run(const Item& item, Arena& arena, Pause pause) override {
    Pacer pacer(pause);
    if (StepOf(item) == Step::kUnits) {
      for (std::int64_t ordinal = item.first; ordinal < item.last; ++ordinal) {
        if (!RunUnit(ordinal, arena, pacer)) return;
      }
      return;
    }
    const OpenUnit& open = items_.At(item.slot);
    const std::int64_t u = open.unit;
    switch (StepOf(item)) {
      case Step::kUnits:
        return;
      case Step::kSplit:
        RunSplit(open, item, arena, pacer);
        return;
      case Step::kPackKeys:
        kernel_.pack_keys(a_, Batch(u), KvHead(u), item.first, item.last, PackedOf(open, item.slot),
                          arena.Get(kernel_.scratch_bytes(a_)));
        if (item.first == open.plan.first_key) ClearUnusedRows(u, open.plan.entries, pacer);
        return;
      case Step::kPackValues:
        kernel_.pack_values(
            a_, Batch(u), KvHead(u), item.first, item.last,
            ValuesIn(open, item.slot) + kernel_.packed_value_bytes(a_, item.first - open.plan.first_key),
            arena.Get(kernel_.scratch_bytes(a_)));
        return;
      case Step::kMerge:
        kernel_.merge(a_, DirectUnitOf(u, open.plan), PartialsIn(item.slot), open.plan.splits);
        ClearUnusedRows(u, open.plan.entries, pacer);
        return;
      case Step::kTile:
        for (std::int64_t tile = item.first; tile < item.last; ++tile) {
          if (!RunTile(open, item.slot, tile, arena, pacer)) return;
        }
        return;
    }
  }

 private:
  std::int64_t Batch(std::int64_t unit) const { return unit / a_.kv_heads; }
  std::int64_t KvHead(std::int64_t unit) const { return unit % a_.kv_heads; }
  std::int64_t FirstHead(std::int64_t unit) const { return KvHead(unit) * plan_.group(); }
  std::int64_t Queries(std::int64_t unit) const { return kernel::QueryLength(a_, Batch(unit)); }

  kernel::DirectUnit DirectUnitOf(std::int64_t unit, const UnitPlan& plan) const {
    return {Batch(unit), plan.entries, KvHead(unit)};
  }

  // A slot's memory: packed keys followed by values, or partial results.
  std::byte* MemoryOf(std::int32_t slot) const { return slots_ + static_cast<std::size_t>(slot) * plan_.slot_bytes(); }
  std::byte* ValuesIn(const OpenUnit& open, std::int32_t slot) const {
    return MemoryOf(slot) + Aligned(kernel_.packed_key_bytes(a_, open.plan.keys));
  }
  PackedHead PackedOf(const OpenUnit& open, std::int32_t slot) const {
    return {MemoryOf(slot), open.values != nullptr ? open.values : ValuesIn(open, slot), open.plan.first_key,
            open.plan.keys};
  }
  float* PartialsIn(std::int32_t slot) const { return reinterpret_cast<float*>(MemoryOf(slot)); }

  std::size_t PartialBytes(const UnitPlan& plan) const {
    return static_cast<std::size_t>(plan.rows * kernel::PartialFloats(a_)) * sizeof(float);
  }

  // Writes zeros to the query rows [first, last) of all heads that share a key head, for one batch entry; a few rows at
  // a time because there may be millions.
  bool Clear(std::int64_t batch, std::int64_t first_head, std::int64_t first, std::int64_t last, Pacer& pacer) const {
    constexpr std::int64_t kRows = 1024;
    for (std::int64_t h = 0; h < plan_.group(); ++h) {
      for (std::int64_t row = first; row < last; row += kRows) {
        const std::int64_t end = std::min(last, row + kRows);
        kernel_.clear(a_, batch, first_head + h, row, end);
        if (!pacer.Spend(plan_.ClearCost(end - row))) return false;
      }
    }
    return true;
  }

  bool ClearUnusedRows(std::int64_t u, std::int64_t entries, Pacer& pacer) const {
    for (std::int64_t b = Batch(u); b < Batch(u) + entries; ++b) {
      const std::int64_t used = kernel::QueryLength(a_, b);
      if (!Clear(b, FirstHead(u), used, used + kernel::UnusedRows(a_, b), pacer)) return false;
    }
    return true;
  }

  // What this thread will probably read after a unit: the running threads take the units in between.
  kernel::Ahead AfterUnit(std::int64_t ordinal) const {
    const std::int64_t next = ordinal + running_.load(std::memory_order_relaxed);
    if (next >= plan_.units()) return {};
    const std::int64_t u = items_.UnitAt(next);
    const UnitPlan plan = items_.PlanOf(u);
    return {{RowsOf(a_.k, DataOf(a_.k), Batch(u), KvHead(u), plan.first_key, plan.keys, a_.head_dim),
             RowsOf(a_.q, DataOf(a_.q), Batch(u), FirstHead(u), 0, Queries(u), a_.head_dim),
             RowsOf(a_.v, DataOf(a_.v), Batch(u), KvHead(u), plan.first_key, plan.keys, a_.value_head_dim)}};
  }

  // What this thread will probably read and write after a tile.
  kernel::Ahead AfterTile(const OpenUnit& open, std::int64_t tile) const {
    const std::int64_t next = tile + running_.load(std::memory_order_relaxed);
    if (next >= items_.TilesOf(open)) return {};
    const Tile at = items_.TileAt(open, next);
    const std::int64_t rows = at.last_row - at.first_row;
    const std::int64_t b = Batch(open.unit);
    return {{RowsOf(a_.q, DataOf(a_.q), b, at.head, at.first_row, rows, a_.head_dim),
             RowsOf(a_.out, a_.out.data, b, at.head, at.first_row, rows, a_.value_head_dim)}};
  }

  static const std::byte* DataOf(const kernel::TensorView& view) {
    return view.segment_count == 1 ? view.segments[0].data : nullptr;
  }

  // The bytes of some rows of a head; empty if there is no data, or the rows are not contiguous or too many.
  template <typename View>
  static kernel::Ahead::Range RowsOf(const View& view, const std::byte* data, std::int64_t b, std::int64_t head,
                                     std::int64_t row, std::int64_t rows, std::int64_t dim) {
    constexpr std::int64_t kMostBytes = 1 << 17;
    const auto size = static_cast<std::int64_t>(tensor::SizeOf(view.dtype));
    if (data == nullptr || view.row_stride != dim || rows * dim * size > kMostBytes) return {};
    const std::byte* at = data + kernel::PlaceOf(view, b, head, row) * size;
    return {at, at + rows * dim * size};
  }

  // Computes a whole unit into the output. Like the functions below, returns false if the job was given up.
  bool RunUnit(std::int64_t ordinal, Arena& arena, Pacer& pacer) {
    const std::int64_t u = items_.UnitAt(ordinal);
    const UnitPlan plan = items_.PlanOf(u);
    if (!ClearUnusedRows(u, plan.entries, pacer)) return false;
    switch (plan.way) {
      case Way::kNothing:
        return Clear(Batch(u), FirstHead(u), 0, Queries(u), pacer);
      case Way::kDirect: {
        const std::size_t partial_bytes = Aligned(static_cast<std::size_t>(plan.splits) * PartialBytes(plan));
        std::byte* scratch = arena.Get(partial_bytes + kernel_.direct_scratch_bytes(a_));
        float* partial = reinterpret_cast<float*>(scratch);
        const kernel::DirectUnit unit = DirectUnitOf(u, plan);
        kernel_.direct(a_, unit, plan.first_key, plan.first_key + plan.keys, plan.split_keys, partial,
                       scratch + partial_bytes);
        kernel_.merge(a_, unit, partial, plan.splits);
        return true;
      }
      default: {
        running_.fetch_add(1, std::memory_order_relaxed);
        const kernel::Ahead ahead = AfterUnit(ordinal);
        const bool done = RunLocal(u, plan.first_key, plan.first_key + plan.keys, nullptr, ahead, arena, pacer);
        running_.fetch_sub(1, std::memory_order_relaxed);
        return done;
      }
    }
  }

  void RunSplit(const OpenUnit& open, const Item& item, Arena& arena, Pacer& pacer) {
    const UnitPlan& plan = open.plan;
    const std::int64_t split = (item.first - plan.first_key) / plan.split_keys;
    float* partial = PartialsIn(item.slot) + split * plan.rows * kernel::PartialFloats(a_);
    if (plan.way == Way::kDirect) {
      kernel_.direct(a_, DirectUnitOf(open.unit, plan), item.first, item.last, plan.split_keys, partial,
                     arena.Get(kernel_.direct_scratch_bytes(a_)));
    } else {
      RunLocal(open.unit, item.first, item.last, partial, {}, arena, pacer);
    }
  }

  // Calls visit(tile, index) for every tile of rows of a unit.
  template <typename Visit>
  void ForEachTile(std::int64_t u, const Visit& visit) const {
    std::int64_t index = 0;
    for (std::int64_t h = 0; h < plan_.group(); ++h) {
      for (std::int64_t row = 0; row < Queries(u); row += kernel_.query_tile) {
        visit(RowTile{Batch(u), FirstHead(u) + h, row, std::min(kernel_.query_tile, Queries(u) - row)}, index++);
      }
    }
  }

  // Computes all rows of a unit over the keys [first, last), packed block by block; into the output if `partial` is
  // null.
  bool RunLocal(std::int64_t u, std::int64_t first, std::int64_t last, float* partial, kernel::Ahead ahead,
                Arena& arena, Pacer& pacer) {
    const std::int64_t block_keys = std::min(plan_.local_keys(), last - first);
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
      if (end < last && !pacer.Spend(plan_.PassCost(Queries(u) * plan_.group(), end - key))) return false;
    }
    ForEachTile(u, [&](const RowTile& tile, std::int64_t i) {
      if (partial == nullptr) {
        kernel_.finish(a_, tile, state(i));
        return;
      }
      const std::int64_t row = (tile.head - FirstHead(u)) * Queries(u) + tile.first_row;
      kernel_.save(a_, tile, state(i), partial + row * kernel::PartialFloats(a_));
    });
    return true;
  }

  bool RunTile(const OpenUnit& open, std::int32_t slot, std::int64_t index, Arena& arena, Pacer& pacer) {
    const std::size_t state_bytes = Aligned(kernel_.state_bytes(a_));
    std::byte* state = arena.Get(state_bytes + kernel_.scratch_bytes(a_));
    std::byte* scratch = state + state_bytes;
    const Tile rows = items_.TileAt(open, index);
    const RowTile tile{Batch(open.unit), rows.head, rows.first_row, rows.last_row - rows.first_row};
    const PackedHead packed = PackedOf(open, slot);
    kernel_.begin(a_, tile, state, scratch);
    running_.fetch_add(1, std::memory_order_relaxed);
    kernel::Ahead ahead = AfterTile(open, index);
    const KeyRange keys = KeysOfTile(tile, packed);
    const std::int64_t last = keys.last;
    const std::int64_t step = StepKeys(tile.rows, last - keys.first);
    bool done = true;
    for (std::int64_t key = keys.first; done && key < last; key += step) {
      const std::int64_t end = std::min(last, key + step);
      kernel_.advance(a_, tile, packed, key, end, ahead, state, scratch);
      done = end == last || pacer.Spend(plan_.PassCost(tile.rows, end - key));
    }
    running_.fetch_sub(1, std::memory_order_relaxed);
    if (done) kernel_.finish(a_, tile, state);
    return done;
  }

  // The keys of a unit that some row of a tile sees, from the beginning of a block on.
  KeyRange KeysOfTile(const RowTile& tile, const PackedHead& packed) const {
    const std::int64_t end =
        kernel::VisibleKeys(a_, tile.batch, packed.first_key + packed.keys, tile.first_row + tile.rows - 1);
    const std::int64_t unseen = kernel::FirstVisible(a_, tile.batch, tile.first_row) - packed.first_key;
    const std::int64_t blocks = std::max<std::int64_t>(0, unseen) / kernel_.key_block;
    return {static_cast<std::int32_t>(packed.first_key + blocks * kernel_.key_block), static_cast<std::int32_t>(end)};
  }

  // Keys that a tile advances over between two pauses: all of them unless they are very many.
  std::int64_t StepKeys(std::int64_t rows, std::int64_t keys) const {
    if (plan_.PassCost(rows, keys) <= 2 * kPauseCost) return keys;
    const auto blocks = static_cast<std::int64_t>(kPauseCost / plan_.PassCost(rows, kernel_.key_block));
    return std::max<std::int64_t>(1, blocks) * kernel_.key_block;
  }

  const Attention a_;
  const Kernel& kernel_;
  const AttentionPlan plan_;
  const std::unique_ptr<std::byte[], FreeAligned> block_;
  AttentionItems items_;
  std::byte* slots_;
  alignas(64) std::atomic<std::int64_t> running_{0};  // threads that compute whole units, or tiles
};

}  // namespace

// Sizes are below 2^31 each, a slot's bytes below 2^56, and those of all slots at most kWindowBytes or one slot's.
std::int64_t AttentionWorkBytes(const AttentionPlan& plan) {
  return static_cast<std::int64_t>(sizeof(AttentionWork) + AttentionItems::Bytes(plan) +
                                   static_cast<std::size_t>(plan.slots()) * plan.slot_bytes());
}

std::unique_ptr<Work> MakeAttentionWork(const Attention& attention, const AttentionPlan& plan) {
  const std::size_t bytes = static_cast<std::size_t>(AttentionWorkBytes(plan)) - sizeof(AttentionWork);
  std::unique_ptr<std::byte[], FreeAligned> block;
  if (bytes > 0) {
    block.reset(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{kAlignment}, std::nothrow)));
    if (block == nullptr) return nullptr;
  }
  return std::unique_ptr<Work>(new (std::nothrow) AttentionWork(attention, plan, std::move(block)));
}

std::unique_ptr<Work> MakeAttentionWork(const Attention& attention, const Kernel& kernel) {
  return MakeAttentionWork(attention, AttentionPlan(attention, kernel));
}

}  // namespace attnd::schedule
