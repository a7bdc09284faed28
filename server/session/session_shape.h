// A session's shape: what it is asked to keep, checked before any memory is taken for it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "attnd/v1/session.pb.h"
#include "cache/page_shape.h"
#include "kernel/attention.h"
#include "model/model.h"
#include "model/registry.h"
#include "reservation/session_bytes.h"
#include "server/config/limits.h"

namespace attnd::server {

// A layer of a session.
struct SessionLayer {
  bool is_self;
  std::int64_t place;  // index among the layers of its kind
  std::int64_t heads;
  cache::LayerShape kept;
  std::optional<kernel::BiasView> bias;  // borrowed from the model
  float scale;
};

// The sequences that a session keeps for its layers of one kind.
struct KeptSequences {
  cache::PageShape pages;
  std::int64_t sequences;  // rows, or sources
  std::int64_t most_tokens;
  reservation::KeptBytes bytes;
};

struct SessionShape {
  std::shared_ptr<const model::Model> model;  // null if no layer has a bias
  std::int64_t rows;
  std::int64_t sources;
  std::vector<SessionLayer> layers;
  std::vector<std::int64_t> row_sources;  // [rows]; empty without sources
  std::optional<KeptSequences> self;      // of the rows
  std::optional<KeptSequences> cross;     // of the sources

  // Reserved in the ledger before the session is made.
  std::int64_t reserved_bytes() const;
};

// Errors: INVALID_ARGUMENT naming the field by its path in the message ("open.layers[2].heads"); NOT_FOUND;
// RESOURCE_EXHAUSTED for sizes that overflow.
absl::StatusOr<SessionShape> CheckOpen(const v1::SessionOpen& open, const Limits& limits,
                                       const model::Registry& registry);

}  // namespace attnd::server
