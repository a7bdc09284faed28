#include "model/hub_cache.h"

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "model/names.h"
#include "model/tables.h"

namespace attnd::model {
namespace {

constexpr char kSnapshots[] = "snapshots";
constexpr char kMain[] = "refs/main";
constexpr std::int64_t kMaxRefBytes = 256;
constexpr std::size_t kMaxShown = 5;

std::string_view LastPart(std::string_view path) { return path.substr(path.rfind('/') + 1); }

std::string_view Parent(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

// "org/name" from "models--org--name": no name on the Hub contains "--".
std::string RepositoryOf(std::string_view name) {
  absl::string_view rest(name.data(), name.size());
  if (!absl::ConsumePrefix(&rest, "models--")) return "";
  return absl::StrReplaceAll(rest, {{"--", "/"}});
}

absl::StatusOr<std::string> SnapshotOfMain(const Folder& repository) {
  const auto source = repository.OpenFile(kMain);
  if (!source.ok()) return source.status();
  const absl::StatusOr<std::string> text = ReadText(**source, kMaxRefBytes);
  if (!text.ok()) return Annotate(text.status(), kMain);
  const std::string commit(absl::StripAsciiWhitespace(*text));
  if (commit.empty() || absl::StrContains(commit, '/') || commit.front() == '.' || absl::StrContains(commit, '\0')) {
    return absl::InvalidArgumentError(absl::StrCat(kMain, ": expected a commit, got ", Quoted(commit)));
  }
  const std::string path = absl::StrCat(kSnapshots, "/", commit);
  if (repository.KindOf(path) == Folder::Kind::kFolder) return path;
  return absl::InvalidArgumentError(absl::StrCat(kMain, " names commit ", Quoted(commit), ", and ", kSnapshots,
                                                 "/ has no such folder: download the model again"));
}

}  // namespace

std::string HubRepository(std::string_view path) {
  std::string name = RepositoryOf(LastPart(path));
  if (name.empty() && LastPart(Parent(path)) == kSnapshots) name = RepositoryOf(LastPart(Parent(Parent(path))));
  return name;
}

bool IsOtherHubRepository(std::string_view name) {
  const absl::string_view view(name.data(), name.size());
  return absl::StartsWith(view, "datasets--") || absl::StartsWith(view, "spaces--");
}

bool IsHubRepository(const Folder& folder) {
  return folder.KindOf("config.json") == Folder::Kind::kNothing && folder.KindOf(kSnapshots) == Folder::Kind::kFolder;
}

absl::StatusOr<std::string> HubSnapshot(const Folder& repository) {
  if (repository.KindOf(kMain) != Folder::Kind::kNothing) return SnapshotOfMain(repository);
  const absl::StatusOr<Folder::Entry> snapshots = repository.Open(kSnapshots);
  if (!snapshots.ok()) return snapshots.status();
  const auto* folder = std::get_if<Folder>(&*snapshots);
  if (folder == nullptr) return absl::InvalidArgumentError(absl::StrCat(kSnapshots, ": expected a folder"));
  const absl::StatusOr<std::vector<std::string>> commits = folder->List();
  if (!commits.ok()) return commits.status();
  if (commits->size() == 1) return absl::StrCat(kSnapshots, "/", commits->front());
  if (commits->empty()) return absl::InvalidArgumentError("snapshots/ is empty: download the model again");
  std::vector<std::string> shown = *commits;
  if (shown.size() > kMaxShown) {
    shown.resize(kMaxShown);
    shown.emplace_back("...");
  }
  return absl::InvalidArgumentError(absl::StrCat("has ", commits->size(), " snapshots and no ", kMain,
                                                 " to say which: load one by its path, ", kSnapshots, "/COMMIT of ",
                                                 absl::StrJoin(shown, ", ")));
}

}  // namespace attnd::model
