// attnd_bench kernel: one attention problem, timed.
#pragma once

namespace attnd::bench {

// Parses flags (argv[0] is the subcommand's name) and prints one line of JSON. Returns the exit status.
int KernelMain(int argc, char** argv);

}  // namespace attnd::bench
