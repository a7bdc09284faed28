#include "model/embedded.h"

#include "model/json_model.h"

namespace attnd::model {

absl::StatusOr<ModelTables> ReadEmbedded(const EmbeddedFile& file) { return ParseJsonModel(file.text, ReadLimits{}); }

}  // namespace attnd::model
