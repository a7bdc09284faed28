// The local cache of the Hugging Face Hub. A repository ORG/NAME is a folder `models--ORG--NAME` with
// `snapshots/COMMIT`, whose files are links into `blobs`, and `refs/main`, which holds the commit of the branch main.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/folder.h"

namespace attnd::model {

// Returns "org/name" for a path whose last part is "models--org--name", or that ends with
// "models--org--name/snapshots/COMMIT"; empty for any other path.
std::string HubRepository(std::string_view path);

// Whether a folder of this name in the cache holds a data set or a space instead of a model.
bool IsOtherHubRepository(std::string_view name);

// Whether the contents of `folder` are those of a repository's folder.
bool IsHubRepository(const Folder& folder);

// The snapshot of a repository to load, as a path below its folder: the one that refs/main names or, without that file,
// the only one. Errors: INVALID_ARGUMENT if there is no snapshot, or several and no refs/main; errors of opening and
// listing.
absl::StatusOr<std::string> HubSnapshot(const Folder& repository);

}  // namespace attnd::model
