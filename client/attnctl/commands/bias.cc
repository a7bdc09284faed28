#include "client/attnctl/commands/bias.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/attnctl/bias_json.h"
#include "client/attnctl/bias_text.h"
#include "client/attnctl/output.h"
#include "client/attnctl/progress.h"
#include "client/attnctl/server.h"
#include "client/attnctl/usage.h"

namespace attnd::ctl {
namespace {

BiasRequest RequestOf(const Flags& flags, const std::string& model) {
  BiasRequest request;
  request.model = model;
  request.version = flags.version.value();
  request.table = flags.table.value();
  request.query_start = flags.query_start.value();
  request.query_count = flags.queries.value();
  request.key_start = flags.key_start.value();
  request.key_count = flags.keys.value() == 0 ? request.query_count : flags.keys.value();
  request.heads = flags.heads.given() ? flags.heads.value() : std::vector{flags.head.value().value_or(0)};
  request.mask = flags.mask.value();
  return request;
}

// Checks that the reply has the requested sizes, so that nothing below reads past its end.
absl::Status CheckReply(const BiasRequest& request, const BiasReply& reply) {
  const auto queries = static_cast<std::size_t>(request.query_count),
             keys = static_cast<std::size_t>(request.key_count);
  const bool sizes_match = reply.offsets.size() / keys == queries && reply.offsets.size() % keys == 0 &&
                           (reply.buckets.empty() || reply.buckets.size() == reply.offsets.size()) &&
                           !reply.heads.empty() && reply.values.size() / reply.heads.size() == reply.offsets.size() &&
                           reply.values.size() % reply.heads.size() == 0;
  return sizes_match ? absl::OkStatus() : absl::InternalError("the server's reply does not have the window's size");
}

absl::StatusOr<BiasReply> Ask(const BiasRequest& request, const Flags& flags) {
  absl::StatusOr<Client> client = Connect(flags);
  if (!client.ok()) return client.status();
  Progress progress("asking " + ServerAddress(flags));
  absl::StatusOr<BiasReply> reply = client->GetBias(request, Options(flags));
  if (!reply.ok()) return reply.status();
  if (absl::Status s = CheckReply(request, *reply); !s.ok()) return s;
  return reply;
}

absl::Status Explain(BiasRequest request, const Flags& flags) {
  const std::string& pair = flags.explain.value();
  const std::vector<std::string> words = absl::StrSplit(pair, ',');
  if (words.size() != 2 || !absl::SimpleAtoi(words[0], &request.query_start) ||
      !absl::SimpleAtoi(words[1], &request.key_start)) {
    return UsageError(absl::StrCat("--explain: expected the positions of a query and a key, as 5,2, got ", pair));
  }
  if (flags.format.value() == Format::kSvg)
    return UsageError("--format: expected text or json with --explain, got svg");
  request.query_count = request.key_count = 1;
  if (!flags.head.value().has_value() && !flags.heads.given()) request.heads.clear();
  const absl::StatusOr<BiasReply> reply = Ask(request, flags);
  if (!reply.ok()) return reply.status();
  const bool json = flags.format.value() == Format::kJson;
  return WriteOutput(flags.out.value(), json ? CellJson(request, *reply) : Sentence(request, *reply));
}

absl::Status Run(const Flags& flags, const std::vector<std::string>& arguments) {
  if (flags.heads.given() && flags.head.value().has_value()) return UsageError("--heads: expected none beside --head");
  const BiasRequest request = RequestOf(flags, arguments[0]);
  if (!flags.explain.value().empty()) return Explain(request, flags);
  if (request.query_count < 1) return UsageError("--queries: expected at least 1");
  if (request.key_count < 1) return UsageError("--keys: expected at least 1");
  const absl::StatusOr<BiasReply> reply = Ask(request, flags);
  if (!reply.ok()) return reply.status();
  const bool several = flags.heads.given();
  return WriteOutput(flags.out.value(),
                     flags.format.value() == Format::kJson
                         ? WindowJson(request, *reply, several)
                         : Picture(request, *reply, several || flags.head.value().has_value(), flags));
}

}  // namespace

Command BiasCommand() {
  return {"bias",
          "MODEL",
          "draw the bias of a window of queries and keys",
          "The grid shows which bucket each query and key are in, u0, u1, ..., and the legend which offsets each\n"
          "bucket holds; with --head or --heads, heat maps on one scale show the values. The server limits a window\n"
          "to --max_bias_cells (4194304 by default) queries x keys x heads.\n\n"
          "  attnctl bias book --queries 6\n"
          "  attnctl bias t5-tiny --queries 512 --head 3 --format svg --out head3.svg\n"
          "  attnctl bias t5-tiny --queries 64 --heads all --format svg --out heads.svg\n"
          "  attnctl bias book --explain 5,2",
          {"queries", "keys", "query_start", "key_start", "table", "version", "mask", "head", "heads", "format", "out",
           "explain"},
          Run,
          "GetBiasRequest"};
}

}  // namespace attnd::ctl
