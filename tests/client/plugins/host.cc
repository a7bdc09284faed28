// Loads plugins, lets each call a server, twice around: host local|global TARGET PLUGIN...
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstdio>
#include <cstring>
#include <vector>

namespace {

// Whether the plugin was linked so that dlclose leaves it in memory.
bool StaysLoaded(void* plugin) {
  link_map* map = nullptr;
  if (dlinfo(plugin, RTLD_DI_LINKMAP, &map) != 0) return false;
  for (const ElfW(Dyn)* entry = map->l_ld; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag == DT_FLAGS_1) return (entry->d_un.d_val & DF_1_NODELETE) != 0;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const int scope = std::strcmp(argv[1], "global") == 0 ? RTLD_GLOBAL : RTLD_LOCAL;
  using Call = int (*)(const char*);
  std::vector<Call> calls;
  for (int i = 3; i < argc; ++i) {
    void* const plugin = dlopen(argv[i], RTLD_NOW | scope);
    void* const call = plugin != nullptr ? dlsym(plugin, "CallServer") : nullptr;
    if (call == nullptr) {
      std::fprintf(stderr, "%s\n", dlerror());
      return 1;
    }
    if (!StaysLoaded(plugin)) {
      std::fprintf(stderr, "dlclose would unload %s under the library's threads\n", argv[i]);
      return 1;
    }
    calls.push_back(reinterpret_cast<Call>(call));
  }
  for (int round = 0; round < 2; ++round) {
    for (const Call call : calls) {
      if (call(argv[2]) != 0) return 1;
    }
  }
  std::puts("every plugin called the server");
  return 0;
}
