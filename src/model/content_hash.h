// What makes two models' biases the same.
#pragma once

#include <map>
#include <string>

#include "bias/bias_table.h"

namespace attnd::model {

// SHA-256 of one table: of its heads, the number of its rule (0 T5, 1 ALiBi, 2 per offset), then
//   T5: num_buckets, max_distance, bidirectional as 0 or 1; ALiBi: bidirectional; per offset: min_offset;
//   then the number of values or slopes, and they themselves in the order of bias/bias_table.h.
// Integers are 64-bit and values 32-bit little-endian words. 32 bytes.
std::string TableHash(const bias::BiasTable& table);

// The hashes of a model's tables, by name. A new version that shares tables with the old one hashes what is new alone.
using TableHashes = std::map<std::string, std::string>;
TableHashes HashesOf(const std::map<std::string, bias::BiasTable>& tables);

// SHA-256, in hex, of each table by name: length of the name as a 64-bit little-endian word, the name, TableHash().
std::string ContentHash(const TableHashes& hashes);

}  // namespace attnd::model
