// The library's own function that a function of the same name and type replaces.
#pragma once

#include <dlfcn.h>

template <typename Function>
Function* Real(const char* name, Function*) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}
#define NAME_(symbol) #symbol
#define NAME(symbol) NAME_(symbol)
// Defines `real`, in the function `symbol`.
#define REAL(symbol) static const auto real = Real(NAME(symbol), &symbol)
