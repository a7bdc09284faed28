// The version of this build.
#pragma once

namespace attnd::server {

inline constexpr char kVersion[] = ATTND_VERSION;

}  // namespace attnd::server
