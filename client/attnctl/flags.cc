#include "client/attnctl/flags.h"

namespace attnd::ctl {

Flag* Flags::Find(absl::string_view name) const {
  for (const FlagList* list : {&common, &own}) {
    for (Flag* flag : *list) {
      if (flag->name() == name) return flag;
    }
  }
  return nullptr;
}

}  // namespace attnd::ctl
