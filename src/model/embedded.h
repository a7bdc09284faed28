// Models compiled into the binary: the files of model/embedded, in the format of docs/models.md.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/model.h"

namespace attnd::model {

struct EmbeddedFile {
  std::string_view name;  // name of the model
  std::string_view text;
};

// Generated at build time. Never destroyed.
const std::vector<EmbeddedFile>& EmbeddedFiles();

// The tables of an embedded file.
absl::StatusOr<ModelTables> ReadEmbedded(const EmbeddedFile& file);

}  // namespace attnd::model
