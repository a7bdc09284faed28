// Keeps the memory that gRPC receives into.
#pragma once

namespace attnd::server {

// Tells glibc's allocator to keep freed memory instead of giving it back to the system after every large message: gRPC
// receives into slices of 64 KiB from malloc, and otherwise each message's pages are unmapped, faulted in and zeroed
// again. Measured (docs/performance.md, "Wire"): an echo of 4 x 16 MiB over a Unix socket takes half the time. The
// process keeps up to this much free memory per arena. For main, before other threads exist; a no-op elsewhere than on
// glibc.
void KeepFreedMemory();

}  // namespace attnd::server
