#include "server/serving/settings.h"

#include "absl/strings/str_cat.h"
#include "kernel/registry.h"

namespace attnd::server {
namespace {

v1::Setting Make(const std::string& name, v1::SettingState state, const std::string& detail) {
  v1::Setting setting;
  setting.set_name(name);
  setting.set_state(state);
  setting.set_detail(detail);
  return setting;
}

}  // namespace

v1::Setting ObservedSetting(const std::string& name, bool in_force, const std::string& detail) {
  return Make(name, in_force ? v1::SETTING_STATE_IN_FORCE : v1::SETTING_STATE_NOT_IN_FORCE, detail);
}

v1::Setting RequestedSetting(const std::string& name, const std::string& detail) {
  return Make(name, v1::SETTING_STATE_REQUESTED, detail);
}

v1::Setting KernelSetting(const kernel::Kernel& in_use, const std::string& asked_for) {
  const std::string requested = kernel::RequestedKernel(asked_for);
  const std::string name(kernel::NameOf(in_use));
  const std::string best(kernel::NameOf(*kernel::AvailableKernels().front()));
  if (name == best) return ObservedSetting("kernel", requested.empty() || requested == name, name);
  return ObservedSetting("kernel", requested == name, absl::StrCat(name, "; the best that this CPU runs is ", best));
}

std::string InWords(const v1::Setting& setting) {
  const char* state = "unknown";
  if (setting.state() == v1::SETTING_STATE_IN_FORCE) state = "in force";
  if (setting.state() == v1::SETTING_STATE_NOT_IN_FORCE) state = "not in force";
  if (setting.state() == v1::SETTING_STATE_REQUESTED) state = "requested";
  return absl::StrCat(setting.name(), ": ", state, " (", setting.detail(), ")");
}

}  // namespace attnd::server
