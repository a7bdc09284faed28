// Loads plugins, lets each call a server, twice around, and closes them: host local|global TARGET PLUGIN...
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <vector>

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
    calls.push_back(reinterpret_cast<Call>(call));
  }
  for (int round = 0; round < 2; ++round) {
    for (const Call call : calls) {
      if (call(argv[2]) != 0) return 1;
    }
  }
  // The library's threads go on, so its code must stay.
  for (int i = 3; i < argc; ++i) {
    void* const plugin = dlopen(argv[i], RTLD_NOW);
    dlclose(plugin);
    dlclose(plugin);
    if (dlopen(argv[i], RTLD_NOW | RTLD_NOLOAD) == nullptr) {
      std::fprintf(stderr, "dlclose unloaded %s\n", argv[i]);
      return 1;
    }
  }
  std::puts("every plugin called the server");
  return 0;
}
