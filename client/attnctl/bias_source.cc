#include "client/attnctl/bias_source.h"

#include <map>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "bias/source_words.h"
#include "client/attnctl/local_model.h"
#include "client/attnctl/progress.h"
#include "client/attnctl/server.h"
#include "client/attnctl/usage.h"
#include "model/model.h"

namespace attnd::ctl {
namespace {

bias::Rule ToEngine(const Table& table) {
  if (const auto* t5 = std::get_if<T5Buckets>(&table.rule)) {
    return bias::T5Rule{t5->num_buckets, t5->max_distance, table.bidirectional, t5->values};
  }
  if (const auto* alibi = std::get_if<AlibiSlopes>(&table.rule)) {
    return bias::AlibiRule{table.bidirectional, alibi->slopes};
  }
  const auto& listed = std::get<PerOffset>(table.rule);
  return bias::PerOffsetRule{listed.min_offset, listed.values};
}

absl::StatusOr<bias::ComparedSource> TableOf(const model::ModelTables& contents, const bias::SourceWords& words,
                                             const std::string& version) {
  // The model needs no real version or source: it is only used to find a table.
  const model::Model model(words.name, 1, "", absl::UnixEpoch(), contents, "");
  const absl::StatusOr<model::Model::Found> found = model.FindTable(words.table);
  if (!found.ok()) return absl::Status(found.status().code(), words.Prefix() + std::string(found.status().message()));
  return bias::ComparedSource{words.label, absl::StrCat("table ", std::string(found->name), version), *found->table,
                              words.head};
}

// Invalid words are an error of the command line.
absl::Status Judged(const absl::Status& status) {
  return status.code() == absl::StatusCode::kInvalidArgument ? UsageError(std::string(status.message())) : status;
}

// Finds sources one after another. Loaded models share one connection.
class Finder {
 public:
  explicit Finder(const Flags& flags) : flags_(flags) {}

  absl::StatusOr<bias::ComparedSource> Find(const std::string& text) {
    const absl::StatusOr<bias::SourceWords> words = bias::ReadSource(text);
    if (!words.ok()) return Judged(words.status());
    if (words->kind == bias::SourceKind::kModel) return Loaded(*words);
    if (words->kind == bias::SourceKind::kFile) {
      const absl::StatusOr<model::ModelTables> contents = ReadLocalModel(words->name);
      if (!contents.ok()) return contents.status();
      return TableOf(*contents, *words, "");
    }
    absl::StatusOr<bias::WordTable> made = bias::MakeTable(*words);
    if (!made.ok()) return Judged(made.status());
    return bias::ComparedSource{words->label, std::move(made->note), std::move(made->table), words->head};
  }

 private:
  absl::StatusOr<bias::ComparedSource> Loaded(const bias::SourceWords& words) {
    if (!client_.has_value()) {
      absl::StatusOr<Client> client = Connect(flags_);
      if (!client.ok()) return client.status();
      client_.emplace(*std::move(client));
    }
    const Progress progress("asking " + ServerAddress(flags_));
    const absl::StatusOr<Model> model = client_->GetModel(words.name, 0, true, Options(flags_));
    if (!model.ok()) return model.status();
    model::ModelTables contents;
    for (const Table& table : model->tables) {
      absl::StatusOr<bias::BiasTable> made = bias::BiasTable::Create(table.heads, ToEngine(table));
      if (!made.ok()) return made.status();
      contents.tables.emplace(table.name, *std::move(made));
    }
    return TableOf(contents, words, absl::StrCat(", version ", model->version));
  }

  const Flags& flags_;
  std::optional<Client> client_;
};

}  // namespace

absl::StatusOr<std::vector<bias::ComparedSource>> FindSources(const std::vector<std::string>& sources,
                                                              const Flags& flags) {
  Finder finder(flags);
  std::vector<bias::ComparedSource> found;
  for (const std::string& source : sources) {
    absl::StatusOr<bias::ComparedSource> one = finder.Find(source);
    if (!one.ok()) return one.status();
    found.push_back(*std::move(one));
  }
  return found;
}

}  // namespace attnd::ctl
