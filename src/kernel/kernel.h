// One build of the kernel, as functions over plain data. The schedule cuts an attention problem into calls of these.
//
// The algorithm of every build is the same: streaming softmax over key tiles with fp32 sums, in base 2 (scale and bias
// are multiplied by log2(e)). Nothing here allocates or keeps state between calls. Calls may run on different threads
// if they are given different memory. Packed memory, state and scratch must be 64-byte aligned; tensors, values in
// place and partial results need not be.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/attention.h"

namespace attnd::kernel {

// Consecutive query rows of one head; at most Kernel::query_tile of them.
struct RowTile {
  std::int64_t batch;
  std::int64_t head;
  std::int64_t first_row;
  std::int64_t rows;
};

// The rows of one direct call: all queries of all heads that share `kv_head`, for the batch entries [batch, batch +
// entries). These entries share their keys and values and see the same of them.
struct DirectUnit {
  std::int64_t batch;
  std::int64_t entries;
  std::int64_t kv_head;
};

// The packed keys and values [first_key, first_key + keys) of one (batch entry, key head).
struct PackedHead {
  std::byte* keys_data;          // packed_key_bytes
  const std::byte* values_data;  // packed_value_bytes, or what values_in_place returned
  std::int64_t first_key;
  std::int64_t keys;
};

// Memory that the caller will read next. `advance` prefetches a few cache lines of it between its blocks and moves `at`
// forward. A prefetch only names an address, so a wrong guess is harmless.
struct Ahead {
  struct Range {
    const std::byte* at;
    const std::byte* end;
  };
  Range ranges[3];
};

struct Kernel {
  const char* name;

  std::int64_t query_tile;   // most rows of a tile
  std::int64_t key_block;    // a packing call begins at a multiple of this, counted from first_key
  std::int64_t direct_rows;  // most rows (entries times queries times heads that share a key head) of a direct call

  // Sizes in bytes of packed keys, of packed values, and of the memory that the functions below work in.
  std::size_t (*packed_key_bytes)(const Attention&, std::int64_t keys);
  std::size_t (*packed_value_bytes)(const Attention&, std::int64_t keys);
  std::size_t (*state_bytes)(const Attention&);
  std::size_t (*scratch_bytes)(const Attention&);
  std::size_t (*direct_scratch_bytes)(const Attention&);

  // Packs the keys [first, last) of a head into `packed`; packs its values [first, last) to `to`.
  void (*pack_keys)(const Attention&, std::int64_t batch, std::int64_t kv_head, std::int64_t first, std::int64_t last,
                    const PackedHead& packed, std::byte* scratch);
  void (*pack_values)(const Attention&, std::int64_t batch, std::int64_t kv_head, std::int64_t first, std::int64_t last,
                      std::byte* to, std::byte* scratch);

  // The values [first, last) of a head, if they already lie in memory in the packed layout and need no packing; null
  // otherwise.
  const std::byte* (*values_in_place)(const Attention&, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                                      std::int64_t last);

  // The life of one tile: begin; advance over key ranges (each inside its `packed`, beginning at a multiple of
  // key_block from its first key); then finish into the output, or save as a partial result. The state persists between
  // the calls, the scratch does not.
  void (*begin)(const Attention&, const RowTile&, std::byte* state, std::byte* scratch);
  void (*advance)(const Attention&, const RowTile&, const PackedHead& packed, std::int64_t first_key,
                  std::int64_t last_key, Ahead& ahead, std::byte* state, std::byte* scratch);
  void (*finish)(const Attention&, const RowTile&, std::byte* state);
  void (*save)(const Attention&, const RowTile&, const std::byte* state, float* partial);

  // Few rows against the keys [first, last), which are read once for all rows and in place where possible. Gives one
  // partial result for each range of range_keys keys from `first` on. A row's result for a range does not depend, to
  // the bit, on the other rows or the other ranges of the call.
  void (*direct)(const Attention&, const DirectUnit&, std::int64_t first, std::int64_t last, std::int64_t range_keys,
                 float* partials, std::byte* scratch);

  // Merges the partial results of `splits` key ranges of a unit, in order, into the output. A partial result has
  // PartialFloats floats for each row, ordered by entry, head and query; the splits are consecutive.
  void (*merge)(const Attention&, const DirectUnit&, const float* partials, std::int64_t splits);

  // Writes zeros (log-sum-exp -inf) to the query rows [first, last) of a head.
  void (*clear)(const Attention&, std::int64_t batch, std::int64_t head, std::int64_t first, std::int64_t last);
};

// Maximum, sum and unnormalised output of a row.
[[gnu::always_inline]] inline std::int64_t PartialFloats(const Attention& a) { return a.value_head_dim + 2; }

}  // namespace attnd::kernel
