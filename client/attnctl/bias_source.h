// The biases that `attnctl bias compare` is asked to compare.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bias/comparison.h"
#include "client/attnctl/flags.h"

namespace attnd::ctl {

// The tables of sources, as bias/source_words.h reads them. Loaded models are asked for at the server; without one
// among the sources no server is needed. Errors: those of ReadSource and MakeTable, as usage errors where the words are
// at fault; those of ReadLocalModel and Client::GetModel; NOT_FOUND for a table that a model or file does not have.
absl::StatusOr<std::vector<bias::ComparedSource>> FindSources(const std::vector<std::string>& sources,
                                                              const Flags& flags);

}  // namespace attnd::ctl
