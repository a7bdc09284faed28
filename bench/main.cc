// attnd_bench: measures parts of attnd in isolation. One file per subcommand.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

#include "kernel_bench.h"
#include "ledger_bench.h"
#include "session_bench.h"

namespace {

// Replaces this process by the program `attnd_bench_NAME` in the same folder. Returns if that fails.
void Become(const std::string& name, char** argv) {
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string program = (self.parent_path() / ("attnd_bench_" + name)).string();
  execv(program.c_str(), argv);
  std::perror(program.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "kernel") return attnd::bench::KernelMain(argc - 1, argv + 1);
  if (command == "ledger") return attnd::bench::LedgerBench();
  if (command == "session") return attnd::bench::SessionMain(argc - 1, argv + 1);
  if (command == "steps" || command == "wire") {
    Become(argv[1], argv + 1);
    return 1;
  }
  std::fprintf(stderr, "usage: attnd_bench kernel|ledger|session|steps|wire [--help]\n");
  return 2;
}
