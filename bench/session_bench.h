// attnd_bench session: what keys and values that the server keeps cost, without a transport.
#pragma once

namespace attnd::bench {

// Parses flags (argv[0] is the subcommand's name), prints one line of JSON. Returns the process's exit status.
int SessionMain(int argc, char** argv);

}  // namespace attnd::bench
