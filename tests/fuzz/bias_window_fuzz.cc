// GetBias: the input is a byte that chooses a model and a GetBiasRequest. What is answered is drawn, too.
#include "server/models/bias_window.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bias/picture.h"
#include "check.h"
#include "input.h"
#include "server/rpc/status.h"
#include "wire/codec_check.h"
#include "xml_check.h"

namespace attnd::server {
namespace {

using fuzz::Check;

bias::BiasTable Made(std::int64_t heads, bias::Rule rule) { return *bias::BiasTable::Create(heads, std::move(rule)); }

model::Model Named(std::map<std::string, bias::BiasTable> tables) {
  return model::Model("m", 3, "upload", absl::UnixEpoch(), {std::move(tables), "upload", ""}, "hash");
}

struct World {
  SilentProtobuf silent;
  std::vector<model::Model> models;
  Limits limits;

  World() {
    limits.max_bias_cells = 1024;
    const std::vector<float> values = {1, -2, 0.5F, 0, 3, -4, 5, 1e-3F};
    models.push_back(Named({{"decoder", Made(2, bias::T5Rule{4, 9, false, values})}}));
    models.push_back(Named({{"encoder", Made(2, bias::T5Rule{4, 9, true, values})},
                            {"decoder", Made(2, bias::AlibiRule{false, {0.5F, -1e19F}})}}));
    models.push_back(Named({{"decoder.0", Made(1, bias::PerOffsetRule{std::int64_t{1} << 32, values})},
                            {"decoder.1", Made(1, bias::PerOffsetRule{-3, values})}}));
  }
};

void Draw(const v1::GetBiasRequest& request, const v1::GetBiasResponse& response) {
  bias::PictureWindow window;
  window.title = request.table();
  window.query_start = request.query_start();
  window.key_start = request.key_start();
  window.queries = request.query_count();
  window.keys = request.key_count();
  window.causal = response.mask() == v1::MASK_CAUSAL;
  window.buckets = {response.buckets().data(), static_cast<std::size_t>(response.buckets_size())};
  for (const v1::BucketRange& range : response.bucket_ranges()) {
    bias::OffsetRange& offsets = window.bucket_ranges[range.bucket()];
    if (range.has_min_offset()) offsets.min = range.min_offset();
    if (range.has_max_offset()) offsets.max = range.max_offset();
  }
  const auto cells = static_cast<std::size_t>(response.offsets_size());
  for (int i = 0; i < response.heads_size(); ++i) {
    window.heads.push_back(
        {response.heads(i), {response.values().data() + static_cast<std::size_t>(i) * cells, cells}});
  }
  // As many heads as are drawn side by side by those who look at them.
  if (window.heads.size() > 8) window.heads.resize(8);
  if (!window.buckets.empty()) fuzz::CheckXml(bias::BucketGridSvg(window));
  fuzz::CheckXml(bias::HeatMapSvg(window));
}

void CheckWindow(const World& world, const model::Model& model, const v1::GetBiasRequest& request,
                 const v1::GetBiasResponse& response) {
  const bias::BiasTable& table = *model.FindTable(request.table())->table;
  const std::int64_t cells = request.query_count() * request.key_count();
  Check(response.offsets_size() == cells, "an offset for each cell");
  Check(response.buckets_size() == (table.Bucket(0).has_value() ? cells : 0), "a bucket for each cell, or none");
  Check(response.heads_size() > 0 && response.values_size() == cells * response.heads_size(),
        "a value for each head and cell");
  Check(cells * response.heads_size() <= world.limits.max_bias_cells, "the window is within its limit");
  Check(response.mask() == v1::MASK_CAUSAL || response.mask() == v1::MASK_NONE, "the mask is known");
  std::map<std::int32_t, const v1::BucketRange*> ranges;
  for (const v1::BucketRange& range : response.bucket_ranges()) ranges[range.bucket()] = &range;
  for (int i = 0; i < response.offsets_size(); ++i) {
    const std::int64_t offset = response.offsets(i);
    const std::int64_t query = request.query_start() + i / request.key_count();
    const std::int64_t key = request.key_start() + i % request.key_count();
    Check(offset == query - key, "an offset is query less key");
    const bool masked = response.mask() == v1::MASK_CAUSAL && offset < 0;
    if (response.buckets_size() > 0) {
      const std::int32_t bucket = response.buckets(i);
      Check((bucket == -1) == masked, "what is masked has no bucket");
      if (!masked) {
        const auto range = ranges.find(bucket);
        Check(range != ranges.end(), "a bucket that occurs has a range");
        Check(!range->second->has_min_offset() || offset >= range->second->min_offset(), "the range holds the offset");
        Check(!range->second->has_max_offset() || offset <= range->second->max_offset(), "the range holds the offset");
      }
    }
    for (int head = 0; head < response.heads_size(); ++head) {
      const float value = response.values(static_cast<int>(head * cells) + i);
      Check(value == (masked ? 0.0F : table.Value(response.heads(head), offset)), "values are the table's");
      Check(std::isfinite(value), "values are finite");
    }
  }
}

void Run(const World& world, fuzz::Input input) {
  const model::Model& model = world.models[input.Take<std::uint8_t>() % world.models.size()];
  v1::GetBiasRequest request;
  const absl::string_view bytes = input.Rest();
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  v1::GetBiasResponse response;
  const absl::Status filled = FillBiasWindow(request, model, world.limits, response);
  if (filled.ok()) {
    CheckWindow(world, model, request, response);
    Draw(request, response);
    return;
  }
  const auto detail = DetailOf(filled);
  Check(detail.has_value() && !detail->field().empty(), "a refusal names its field");
}

}  // namespace
}  // namespace attnd::server

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const attnd::server::World& world = *new attnd::server::World;
  attnd::server::Run(world, attnd::fuzz::Input(data, size));
  return 0;
}
