#include "client/attnctl/commands/models_upload.h"

#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "bias/bias_table.h"
#include "client/attnctl/local_model.h"
#include "client/attnctl/model_text.h"
#include "client/attnctl/progress.h"
#include "client/attnctl/server.h"
#include "client/attnctl/usage.h"
#include "model/model.h"

namespace attnd::ctl {
namespace {

struct ToClient {
  std::variant<T5Buckets, AlibiSlopes, PerOffset> operator()(const bias::T5Rule& rule) const {
    return T5Buckets{rule.num_buckets, rule.max_distance, rule.values};
  }
  std::variant<T5Buckets, AlibiSlopes, PerOffset> operator()(const bias::AlibiRule& rule) const {
    return AlibiSlopes{rule.slopes};
  }
  std::variant<T5Buckets, AlibiSlopes, PerOffset> operator()(const bias::PerOffsetRule& rule) const {
    return PerOffset{rule.min_offset, rule.values};
  }
};

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  const std::string& name = arguments[0];
  Progress progress("reading " + arguments[1]);
  const absl::StatusOr<model::ModelTables> contents = ReadLocalModel(arguments[1]);
  if (!contents.ok()) {
    return WithAdvice(contents.status(),
                      "PATH names a Hugging Face checkpoint folder, a GGUF file or a JSON table of this machine");
  }
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  progress.Next("uploading " + name);
  const std::string only = flags.table.value();
  absl::StatusOr<Model> model = WithAdvice(absl::NotFoundError(absl::StrCat(arguments[1], " has no table ", only)),
                                           "leave --table out to send all of its tables");
  for (const auto& [table_name, table] : contents->tables) {
    if (!only.empty() && only != table_name) continue;
    const Table sent{table_name, table.heads(), table.bidirectional(), std::visit(ToClient{}, table.rule())};
    model = client->UploadTable(name, sent, flags.replace.value(), Options(flags));
    if (!model.ok()) return model.status();
  }
  return PrintMade("uploaded", model, flags);
}

}  // namespace

Command ModelsUploadCommand() {
  return {
      "models upload",
      "MODEL PATH",
      "send a model's tables from this machine",
      "PATH is a Hugging Face checkpoint folder, a GGUF file or a JSON table of this machine. Its tables make a new "
      "model,\n"
      "or with --replace new versions of an uploaded one.\n\n"
      "  attnctl models upload mine tables.json",
      {"table", "replace", "json", "format"},
      Run,
      "UploadTableRequest",
      TextOrJson()};
}

}  // namespace attnd::ctl
