#include <filesystem>
#include <string>
#include <system_error>
#include <variant>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "bias/bias_table.h"
#include "client/attnctl/command.h"
#include "client/attnctl/flags.h"
#include "client/attnctl/progress.h"
#include "model/folder.h"
#include "model/model_file.h"

namespace attnd::ctl {
namespace {

// A model's tables from a file or folder of this machine, read as the server reads them.
absl::StatusOr<model::ModelTables> ReadLocal(const std::string& path) {
  std::error_code error;
  const std::filesystem::path whole = std::filesystem::canonical(path, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot open ", path));
  const absl::StatusOr<model::Folder> parent = model::Folder::OpenRoot(whole.parent_path().string());
  if (!parent.ok()) return parent.status();
  return model::ReadModel(*parent, whole.filename().string(), {});
}

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

}  // namespace

absl::Status UploadModel(const std::vector<std::string>& arguments) {
  const std::string& name = arguments[0];
  Progress progress("reading " + arguments[1]);
  const absl::StatusOr<model::ModelTables> contents = ReadLocal(arguments[1]);
  if (!contents.ok()) return contents.status();
  absl::StatusOr<Client> client = Connect();
  if (!client.ok()) return client.status();
  progress.Next("uploading " + name);
  const std::string only = absl::GetFlag(FLAGS_table);
  absl::StatusOr<Model> model = absl::NotFoundError(absl::StrCat(arguments[1], " has no table ", only));
  for (const auto& [table_name, table] : contents->tables) {
    if (!only.empty() && only != table_name) continue;
    const Table sent{table_name, table.heads(), table.bidirectional(), std::visit(ToClient{}, table.rule())};
    model = client->UploadTable(name, sent, absl::GetFlag(FLAGS_replace), Options());
    if (!model.ok()) return model.status();
  }
  return PrintMade("uploaded", model);
}

}  // namespace attnd::ctl
