#include "files/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "files/output_file.h"

namespace attnd::files {

absl::Status WriteStandardOutput(std::string_view text) {
  return WriteFile("-", {{reinterpret_cast<const std::byte*>(text.data()), text.size()}});
}

void HoldStandardStreams() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    // Takes the lowest free number. O_PATH: can be neither read nor written, not even when opened again by its /proc
    // name.
    open("/", O_PATH | O_DIRECTORY);
  }
}

}  // namespace attnd::files
