// attnd_bench wire: what a remote call costs beside the arithmetic.
#pragma once

namespace attnd::bench {

// Parses flags (argv[0] is the subcommand's name), prints one line of JSON. Returns the process's exit status.
int WireMain(int argc, char** argv);

}  // namespace attnd::bench
