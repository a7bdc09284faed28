#include "client/attnctl/attention_report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "tensor/dtype.h"

namespace attnd::ctl {
namespace {

std::string Words(Transport transport) {
  switch (transport) {
    case Transport::kGrpc:
      break;
    case Transport::kSharedMemory:
      return "gRPC, tensors in shared memory";
    case Transport::kLocal:
      return "the local socket";
  }
  return "gRPC";
}

const char* Name(Transport transport) {
  return transport == Transport::kGrpc ? "grpc" : transport == Transport::kLocal ? "local" : "shared_memory";
}

std::string NameOf(DType dtype) { return std::string(tensor::NameOf(ToEngine(dtype))); }

// For a call that travelled in pieces, compute_time is the sum over its pieces, which overlap in time.
std::string Times(const ComputeReply& reply) {
  const std::string queued = absl::FormatDuration(reply.queue_time),
                    computed = absl::FormatDuration(reply.compute_time);
  if (reply.pieces == 1) return absl::StrCat("queued ", queued, ", computed ", computed);
  return absl::StrCat("queued up to ", queued, ", ", reply.pieces, " pieces of work, several at once, of ", computed,
                      " in all");
}

}  // namespace

std::string AsText(const Answered& answered, const std::optional<Difference>& difference) {
  const ComputeRequest& request = answered.request;
  const ComputeReply& reply = answered.reply;
  const std::string origin =
      request.bias == Bias::kNone ? "without bias" : absl::StrCat("from ", request.model, " version ", reply.version);
  std::string text =
      absl::StrFormat("o [%s] %s %s; server: %s; whole call %s, by %s\n", absl::StrJoin(reply.output.sizes(), ", "),
                      NameOf(reply.dtype), origin, Times(reply),
                      absl::FormatDuration(absl::Trunc(answered.call, absl::Microseconds(1))), Words(reply.transport));
  if (difference.has_value()) {
    absl::StrAppendFormat(&text, "max abs error against %s: %.3g\n", difference->name, difference->largest);
  }
  return text;
}

std::string AsJson(const Answered& answered, const std::optional<Difference>& difference) {
  const ComputeRequest& request = answered.request;
  const ComputeReply& reply = answered.reply;
  const Flags& flags = answered.flags;
  nlohmann::ordered_json json;
  json["model"] = nullptr;
  if (request.bias != Bias::kNone) {
    json["model"] = {{"name", request.model},
                     {"version", reply.version},
                     {"content_hash", reply.content_hash},
                     {"table", request.table.empty() ? "decoder" : request.table}};
  }
  json["mask"] = request.mask == Mask::kOfTable ? "of the table" : flags.mask.word();
  if (request.mask == Mask::kOfTable && request.bias == Bias::kNone) json["mask"] = "none";
  json["layout"] = flags.layout.word();
  json["shapes"] = {
      {"q", request.q.sizes}, {"k", request.k.sizes}, {"v", request.v.sizes}, {"o", reply.output.sizes()}};
  json["dtype"] = NameOf(request.q.dtype);
  json["output_dtype"] = NameOf(reply.dtype);
  json["queue_seconds"] = absl::ToDoubleSeconds(reply.queue_time);
  json["compute_seconds"] = absl::ToDoubleSeconds(reply.compute_time);
  json["pieces"] = reply.pieces;
  json["call_seconds"] = absl::ToDoubleSeconds(answered.call);
  json["transport"] = Name(reply.transport);
  json["output"] = nullptr;
  if (!flags.output.value().empty()) json["output"] = flags.output.value();
  json["comparison"] = nullptr;
  if (difference.has_value()) {
    // JSON has no infinity: it becomes null.
    auto& comparison = json["comparison"];
    comparison = {{"tensor", difference->name},
                  {"max_abs_error", difference->largest},
                  {"rms_error", difference->rms},
                  {"tolerance", nullptr},
                  {"within_tolerance", difference->held()}};
    if (difference->tolerance.has_value()) comparison["tolerance"] = *difference->tolerance;
  }
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace attnd::ctl
