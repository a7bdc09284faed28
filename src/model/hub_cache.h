// The cache that Hugging Face's libraries keep of the Hub. A repository ORG/NAME is a folder `models--ORG--NAME` with
// `snapshots/COMMIT`, whose files are links into `blobs`, and `refs/main`, which says the commit of the branch main.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/folder.h"

namespace attnd::model {

// "org/name" for a path whose last part is "models--org--name", or that ends with "models--org--name/snapshots/COMMIT";
// empty for any other.
std::string HubRepository(std::string_view path);

// Whether a folder of this name in the cache holds no models: data sets and spaces.
bool IsOtherHubRepository(std::string_view name);

// Whether `folder` is a repository's, by what is in it.
bool IsHubRepository(const Folder& folder);

// The snapshot to load of a repository, as a path below its folder: the one that refs/main names or, without that file,
// the only one. Errors: INVALID_ARGUMENT if there is none or no saying which, and what opening and listing returns.
absl::StatusOr<std::string> HubSnapshot(const Folder& repository);

}  // namespace attnd::model
