// One build of the kernel, as functions over plain data. The schedule cuts an attention problem into calls of these.
//
// The arithmetic of every build is the same: streaming softmax over key tiles in fp32, in base 2 (scale and the bias
// carry log2(e)). Nothing here allocates or keeps state between calls; different calls may run on different threads as
// long as they are given different memory. All memory given must be 64-byte aligned.
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

// What one direct call computes: all queries of all heads that share `kv_head`, of the batch entries [batch, batch +
// entries), which share their keys and values and see the same of them.
struct DirectUnit {
  std::int64_t batch;
  std::int64_t entries;
  std::int64_t kv_head;
};

// The keys and values [first_key, first_key + keys) of one (batch, key head), packed.
struct PackedHead {
  std::byte* keys_data;          // packed_key_bytes
  const std::byte* values_data;  // packed_value_bytes, or where values_in_place found them
  std::int64_t first_key;
  std::int64_t keys;
};

// Memory that the caller will read next: `advance` asks for it a few lines at a time, between its blocks, and moves
// `at`. Only addresses are named, so it may be wrong.
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

  // Bytes of packed keys and values, and of the memory that the functions below work in.
  std::size_t (*packed_key_bytes)(const Attention&, std::int64_t keys);
  std::size_t (*packed_value_bytes)(const Attention&, std::int64_t keys);
  std::size_t (*state_bytes)(const Attention&);
  std::size_t (*scratch_bytes)(const Attention&);
  std::size_t (*direct_scratch_bytes)(const Attention&);

  // Packs the keys [first, last) of a head that `packed` describes, and its values [first, last), which begin at `to`.
  void (*pack_keys)(const Attention&, std::int64_t batch, std::int64_t kv_head, std::int64_t first, std::int64_t last,
                    const PackedHead& packed, std::byte* scratch);
  void (*pack_values)(const Attention&, std::int64_t batch, std::int64_t kv_head, std::int64_t first, std::int64_t last,
                      std::byte* to, std::byte* scratch);

  // Where the values [first, last) of a head lie as packed values would, so that they need not be packed; null if they
  // do not.
  const std::byte* (*values_in_place)(const Attention&, std::int64_t batch, std::int64_t kv_head, std::int64_t first,
                                      std::int64_t last);

  // One tile's life: begin, advance over key ranges in any cut (each inside `packed`, begun at a multiple of key_block
  // from its first key), then finish into the output or save as a partial result. The state lives between the calls,
  // the scratch does not.
  void (*begin)(const Attention&, const RowTile&, std::byte* state, std::byte* scratch);
  void (*advance)(const Attention&, const RowTile&, const PackedHead& packed, std::int64_t first_key,
                  std::int64_t last_key, Ahead& ahead, std::byte* state, std::byte* scratch);
  void (*finish)(const Attention&, const RowTile&, std::byte* state);
  void (*save)(const Attention&, const RowTile&, const std::byte* state, float* partial);

  // Few rows against the keys [first, last), read once for all and in place, as one partial result for each range of
  // range_keys keys from the first on. What a row gets of a range does not depend, to the bit, on which others are
  // beside it, nor on which other ranges the call has.
  void (*direct)(const Attention&, const DirectUnit&, std::int64_t first, std::int64_t last, std::int64_t range_keys,
                 float* partials, std::byte* scratch);

  // Merges the partial results of `splits` key ranges of a unit, in order, into the output. A partial result has
  // PartialFloats per row, rows ordered by entry, head and query; splits follow each other.
  void (*merge)(const Attention&, const DirectUnit&, const float* partials, std::int64_t splits);

  // Writes zeros (log-sum-exp -inf) to the query rows [first, last) of a head.
  void (*clear)(const Attention&, std::int64_t batch, std::int64_t head, std::int64_t first, std::int64_t last);
};

// Maximum, sum and unnormalised output of a row.
[[gnu::always_inline]] inline std::int64_t PartialFloats(const Attention& a) { return a.value_head_dim + 2; }

}  // namespace attnd::kernel
