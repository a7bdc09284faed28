// Keeps the memory that gRPC receives into.
#pragma once

namespace attnd::server {

// Tells glibc's allocator to keep freed memory instead of giving it back to the system after every large message: gRPC
// receives into slices of 64 KiB from malloc, and otherwise each message's pages are unmapped, faulted in and zeroed
// again. All threads share one arena, on huge pages where the system has them. Measured (docs/performance.md, "Settings
// of the channel"): an echo of 4 x 1 MiB over TCP takes a quarter less time, one of 4 x 16 MiB over a Unix socket half.
// Up to 256 MiB that are free are kept. For main, before other threads exist; a no-op elsewhere than on glibc.
void KeepFreedMemory();

}  // namespace attnd::server
