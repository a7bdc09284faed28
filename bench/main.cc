// attnd_bench: measures parts of attnd by themselves. One subcommand per file.
#include <cstdio>
#include <string_view>

#include "kernel_bench.h"
#include "wire_bench.h"

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "kernel") return attnd::bench::KernelMain(argc - 1, argv + 1);
#if ATTND_BENCH_WIRE  // not in a build of the engine alone
  if (command == "wire") return attnd::bench::WireMain(argc - 1, argv + 1);
#endif
  std::fprintf(stderr, "usage: attnd_bench kernel|wire [--help]\n");
  return 2;
}
