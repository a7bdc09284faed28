// Hashes that tell whether two models have the same biases.
#pragma once

#include <map>
#include <string>

#include "bias/bias_table.h"

namespace attnd::model {

// SHA-256 of one table, 32 bytes. Hashed in this order: heads; the number of the rule (0 T5, 1 ALiBi, 2 per offset);
//   T5: num_buckets, max_distance, bidirectional as 0 or 1; ALiBi: bidirectional; per offset: min_offset;
//   then the number of values or slopes, and the values or slopes in the order of bias/bias_table.h.
// Integers are 64-bit and values are 32-bit little-endian words.
std::string TableHash(const bias::BiasTable& table);

// The hashes of a model's tables, by name. A new version that shares tables with the old one hashes only the new ones.
using TableHashes = std::map<std::string, std::string>;
TableHashes HashesOf(const std::map<std::string, bias::BiasTable>& tables);

// SHA-256, in hex, over all tables in order of name: the name's length as a 64-bit little-endian word, the name,
// TableHash().
std::string ContentHash(const TableHashes& hashes);

}  // namespace attnd::model
