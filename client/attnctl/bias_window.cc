#include "client/attnctl/bias_window.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace attnd::ctl {

bias::PictureWindow PictureOf(const BiasRequest& request, const BiasReply& reply) {
  bias::PictureWindow window;
  window.title = absl::StrCat(request.model, " version ", reply.version, ", ", reply.table);
  window.query_start = request.query_start;
  window.key_start = request.key_start;
  window.queries = request.query_count;
  window.keys = request.key_count;
  window.causal = reply.mask == Mask::kCausal;
  window.buckets = reply.buckets;
  for (const BucketRange& range : reply.bucket_ranges) {
    window.bucket_ranges[range.bucket] = {range.min_offset, range.max_offset};
  }
  const std::size_t cells = reply.offsets.size();
  for (std::size_t i = 0; i < reply.heads.size(); ++i) {
    window.heads.push_back({reply.heads[i], absl::MakeConstSpan(reply.values).subspan(i * cells, cells)});
  }
  return window;
}

}  // namespace attnd::ctl
