#include "client/attnctl/commands/sessions_plan.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/attnctl/output.h"
#include "client/attnctl/server.h"
#include "client/attnctl/session_plan.h"
#include "client/attnctl/session_plan_text.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

absl::StatusOr<SessionBudget> AskServer(const SessionPlan& plan, const Flags& flags) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  const absl::StatusOr<ServerInfo> info = client->GetServerInfo(Options(flags));
  if (!info.ok()) return info.status();
  if (absl::Status s = CheckPlan(plan, flags, info->limits); !s.ok()) return s;
  std::optional<SessionBudget> budget = BudgetOf(*info);
  if (budget.has_value()) return *budget;
  return WithAdvice(absl::UnimplementedError(absl::StrCat(ServerAddress(flags), " does not say what sessions may use")),
                    "it is older than this attnctl: plan for what it has with `--budget SIZE`");
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& /*arguments*/) {
  const absl::StatusOr<SessionPlan> plan = PlanOf(flags);
  if (!plan.ok()) return plan.status();
  const std::optional<ByteCount>& size = flags.budget.value();
  const absl::StatusOr<SessionBudget> budget = size.has_value() ? BudgetOf(size->bytes) : AskServer(*plan, flags);
  if (!budget.ok()) return budget.status();
  return WriteOutput("", flags.WantsJson() ? JsonOfPlan(*plan, *budget)
                                           : TextOfPlan(*plan, *budget, size.has_value() ? "" : ServerAddress(flags)));
}

}  // namespace

Command SessionsPlanCommand() {
  Command command = {
      "sessions plan",
      "",
      "say what a session reserves, and how many fit",
      "A session reserves all that it may need when it opens. This prints how much that is, to the byte and part by\n"
      "part, and how many such sessions fit: into --budget, for which no server is needed, or into what is free at\n"
      "the server now. Calls and steps take memory from the same budget while they are computed: leave them some.\n\n"
      "  attnctl sessions plan --rows 16 --sources 4 --self_layers 6 --cross_layers 6 --heads 8 --head_dim 64 \\\n"
      "      --max_tokens 256 --max_source_tokens 512 --dtype bf16 --budget 4GiB",
      {"rows", "sources", "self_layers", "cross_layers", "max_tokens", "max_source_tokens", "heads", "kv_heads",
       "head_dim", "value_head_dim", "dtype", "budget", "json", "format"},
      Run,
      {},
      TextOrJson()};
  command.instead = &Flags::plan;
  command.offline = "`--budget SIZE` plans without a server";
  return command;
}

}  // namespace attnd::ctl
