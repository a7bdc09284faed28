// attnd_bench session: the cost of keeping keys and values in the server, without a transport.
#pragma once

namespace attnd::bench {

// Parses flags (argv[0] is the subcommand's name) and prints one line of JSON. Returns the exit status.
int SessionMain(int argc, char** argv);

}  // namespace attnd::bench
