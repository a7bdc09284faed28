// A checkpoint folder: the input is its files, each after a line that names it between two bytes 0x1e.
#include "model/hf_checkpoint.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "tables_check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::map<std::string, std::string_view> files;
  while (!rest.empty() && rest.front() == '\x1e') {
    const std::size_t name_end = rest.find('\x1e', 1);
    if (name_end == std::string_view::npos) break;
    const std::size_t next = rest.find('\x1e', name_end + 1);
    const std::size_t end = next == std::string_view::npos ? rest.size() : next;
    files[std::string(rest.substr(1, name_end - 1))] = rest.substr(name_end + 1, end - name_end - 1);
    rest.remove_prefix(end);
  }
  const auto open = [&](const std::string& name) -> absl::StatusOr<std::unique_ptr<attnd::files::ByteSource>> {
    attnd::fuzz::Check(name.find('/') == std::string::npos && name != "..", "only names within the folder are opened");
    const auto found = files.find(name);
    if (found == files.end()) return absl::NotFoundError(name);
    const auto* bytes = reinterpret_cast<const std::byte*>(found->second.data());
    return attnd::files::OpenMemory({bytes, found->second.size()});
  };
  const auto contents = attnd::model::ReadHfCheckpoint(open, attnd::fuzz::kLimits);
  if (contents.ok()) attnd::fuzz::CheckTables(*contents);
  return 0;
}
