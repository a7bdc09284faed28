// Finds the biases that `attnctl bias compare` compares.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bias/comparison.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// Returns the tables of `sources`, which bias/source_words.h parses. Gets loaded models from the server; if there is
// none among the sources, no server is needed. Errors: those of ReadSource and MakeTable, as usage errors if the words
// are at fault; those of ReadLocalModel and Client::GetModel; NOT_FOUND for a table that a model or file does not have.
absl::StatusOr<std::vector<bias::ComparedSource>> FindSources(const std::vector<std::string>& sources,
                                                              const Flags& flags);

}  // namespace attnd::ctl
