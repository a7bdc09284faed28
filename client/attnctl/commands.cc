#include "client/attnctl/commands.h"

#include "client/attnctl/commands/attend.h"
#include "client/attnctl/commands/bias.h"
#include "client/attnctl/commands/bias_compare.h"
#include "client/attnctl/commands/completion.h"
#include "client/attnctl/commands/health.h"
#include "client/attnctl/commands/info.h"
#include "client/attnctl/commands/manual.h"
#include "client/attnctl/commands/models_list.h"
#include "client/attnctl/commands/models_load.h"
#include "client/attnctl/commands/models_reload.h"
#include "client/attnctl/commands/models_show.h"
#include "client/attnctl/commands/models_unload.h"
#include "client/attnctl/commands/models_upload.h"
#include "client/attnctl/commands/sessions_evict.h"
#include "client/attnctl/commands/sessions_list.h"
#include "client/attnctl/commands/sessions_plan.h"
#include "client/attnctl/commands/sessions_show.h"

namespace attnd::ctl {

const std::vector<Command>& Commands() {
  static const auto* const commands = new std::vector<Command>{
      AttendCommand(),       BiasCommand(),         BiasCompareCommand(),  ModelsListCommand(),
      ModelsShowCommand(),   ModelsLoadCommand(),   ModelsReloadCommand(), ModelsUnloadCommand(),
      ModelsUploadCommand(), SessionsListCommand(), SessionsShowCommand(), SessionsEvictCommand(),
      SessionsPlanCommand(), InfoCommand(),         HealthCommand(),       CompletionCommand(),
      ManualCommand(),
  };
  return *commands;
}

}  // namespace attnd::ctl
