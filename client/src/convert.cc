#include "client/src/convert.h"

#include <variant>

#include "client/src/proto_time.h"

namespace attnd::client {
namespace {

absl::Time ToTime(const v1::Timestamp& t) { return absl::FromUnixSeconds(t.seconds()) + absl::Nanoseconds(t.nanos()); }

Table TableFromProto(const v1::Table& m) {
  Table table;
  table.name = m.name();
  table.heads = m.heads();
  table.bidirectional = m.bidirectional();
  switch (m.rule_case()) {
    case v1::Table::kT5: {
      const auto& t5 = m.t5();
      table.rule = T5Buckets{t5.num_buckets(), t5.max_distance(), {t5.values().begin(), t5.values().end()}};
      break;
    }
    case v1::Table::kAlibi:
      table.rule = AlibiSlopes{{m.alibi().slopes().begin(), m.alibi().slopes().end()}};
      break;
    case v1::Table::kPerOffset: {
      const auto& each = m.per_offset();
      table.rule = PerOffset{each.min_offset(), {each.values().begin(), each.values().end()}};
      break;
    }
    case v1::Table::RULE_NOT_SET:  // the server is newer than this client
      break;
  }
  return table;
}

Limits LimitsFromProto(const v1::Limits& m) {
  Limits limits;
#define ATTND_LIMIT(name, ...) limits.name = m.name();
#define ATTND_FIXED_LIMIT(name, value) limits.name = m.name();
#include "attnd/limits.inc"
  return limits;
}

struct SetRule {
  v1::Table& m;
  void operator()(const T5Buckets& rule) const {
    m.mutable_t5()->set_num_buckets(rule.num_buckets);
    m.mutable_t5()->set_max_distance(rule.max_distance);
    m.mutable_t5()->mutable_values()->Add(rule.values.begin(), rule.values.end());
  }
  void operator()(const AlibiSlopes& rule) const {
    m.mutable_alibi()->mutable_slopes()->Add(rule.slopes.begin(), rule.slopes.end());
  }
  void operator()(const PerOffset& rule) const {
    m.mutable_per_offset()->set_min_offset(rule.min_offset);
    m.mutable_per_offset()->mutable_values()->Add(rule.values.begin(), rule.values.end());
  }
};

}  // namespace

Model FromProto(const v1::Model& m) {
  Model model;
  model.name = m.name();
  model.version = m.version();
  model.heads = m.heads();
  for (const v1::Table& table : m.tables()) model.tables.push_back(TableFromProto(table));
  model.source = m.source();
  model.format = m.format();
  model.architecture = m.architecture();
  model.content_hash = m.content_hash();
  model.loaded_at = ToTime(m.loaded_at());
  return model;
}

v1::Table ToProto(const Table& table) {
  v1::Table m;
  m.set_name(table.name);
  m.set_heads(table.heads);
  m.set_bidirectional(table.bidirectional);
  std::visit(SetRule{m}, table.rule);
  return m;
}

v1::GetBiasRequest ToProto(const BiasRequest& r) {
  v1::GetBiasRequest m;
  m.set_model(r.model);
  m.set_version(r.version);
  m.set_table(r.table);
  m.set_query_start(r.query_start);
  m.set_query_count(r.query_count);
  m.set_key_start(r.key_start);
  m.set_key_count(r.key_count);
  m.set_mask(static_cast<v1::Mask>(r.mask));
  m.mutable_heads()->Add(r.heads.begin(), r.heads.end());
  return m;
}

BiasReply FromProto(const v1::GetBiasResponse& m) {
  BiasReply reply;
  reply.version = m.version();
  reply.content_hash = m.content_hash();
  reply.table = m.table();
  reply.mask = static_cast<Mask>(m.mask());
  reply.offsets.assign(m.offsets().begin(), m.offsets().end());
  reply.buckets.assign(m.buckets().begin(), m.buckets().end());
  reply.heads.assign(m.heads().begin(), m.heads().end());
  reply.values.assign(m.values().begin(), m.values().end());
  for (const v1::BucketRange& range : m.bucket_ranges()) {
    BucketRange& converted = reply.bucket_ranges.emplace_back();
    converted.bucket = range.bucket();
    if (range.has_min_offset()) converted.min_offset = range.min_offset();
    if (range.has_max_offset()) converted.max_offset = range.max_offset();
  }
  return reply;
}

MemoryUse MemoryUseFromProto(const v1::MemoryUse& m) {
  return {m.total_bytes(),
          m.used_bytes(),
          m.peak_bytes(),
          m.free_bytes(),
          m.peers(),
          m.largest_peer_bytes(),
          m.refused_by_total(),
          m.refused_by_share(),
          m.refused_as_never_fitting(),
          m.max_peer_bytes()};
}

ServerInfo FromProto(const v1::GetServerInfoResponse& m) {
  ServerInfo info;
  info.version = m.version();
  info.kernel = m.kernel();
  info.available_kernels.assign(m.available_kernels().begin(), m.available_kernels().end());
  info.threads = m.threads();
  info.started_at = ToTime(m.started_at());
  info.limits = LimitsFromProto(m.limits());
  info.local_calls = m.local_calls();
  if (m.has_memory()) info.memory = MemoryUseFromProto(m.memory());
  if (m.has_shared_memory()) info.shared_memory = MemoryUseFromProto(m.shared_memory());
  info.stalled_calls = {m.stalled_calls().writes(), m.stalled_calls().reads()};
  info.queue = {m.queue().waiting(), m.queue().refused(), m.queue().expired()};
  info.model_bytes = m.model_bytes();
  if (m.has_sessions()) {
    const v1::SessionUse& use = m.sessions();
    info.sessions = SessionUse{use.open(), use.evicted(), use.max_sessions(), use.max_peer_sessions()};
  }
  for (const v1::Setting& setting : m.settings()) {
    info.settings.push_back({setting.name(), static_cast<SettingState>(setting.state()), setting.detail()});
  }
  return info;
}

OpenSessionInfo FromProto(const v1::SessionInfo& m) {
  OpenSessionInfo info;
  info.id = m.id();
  info.peer = m.peer();
  info.model = m.model();
  info.version = m.version();
  info.rows = m.rows();
  info.sources = m.sources();
  info.layers = m.layers();
  info.reserved_bytes = m.reserved_bytes();
  info.used_bytes = m.used_bytes();
  info.steps = m.steps();
  info.age = ToDuration(m.age());
  info.idle = ToDuration(m.idle());
  return info;
}

}  // namespace attnd::client
