// What makes two models' biases the same.
#pragma once

#include <map>
#include <string>

#include "bias/bias_table.h"

namespace attnd::model {

// SHA-256, in hex, of the bytes that follow, integers as 64-bit and values as 32-bit little-endian words:
//   for each table by name: length of the name, the name, heads, number of the rule (0 T5, 1 ALiBi, 2 per offset), then
//   T5: num_buckets, max_distance, bidirectional as 0 or 1; ALiBi: bidirectional; per offset: min_offset;
//   then the number of values or slopes, and they themselves in the order of bias/bias_table.h.
std::string ContentHash(const std::map<std::string, bias::BiasTable>& tables);

}  // namespace attnd::model
