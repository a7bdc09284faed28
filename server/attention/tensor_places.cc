#include "server/attention/tensor_places.h"

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

// Whether `written` overlaps none of the others.
bool ApartFrom(std::initializer_list<const SharedBytes*> others, const SharedBytes& written) {
  return std::all_of(others.begin(), others.end(), [&written](const SharedBytes* other) {
    return other->region != written.region || written.data + written.size <= other->data ||
           other->data + other->size <= written.data;
  });
}

}  // namespace

absl::Status TensorPlaces::CheckShares(absl::string_view field) const {
  if (memory_ != nullptr) return absl::OkStatus();
  return FieldError(absl::StatusCode::kFailedPrecondition, field,
                    "none (this server shares no memory: it has no unix: address, or --noshared_memory)",
                    "a tensor in shared memory");
}

SharedParts& TensorPlaces::Parts() {
  if (parts_ == nullptr) parts_ = std::make_shared<SharedParts>();
  return *parts_;
}

absl::Status TensorPlaces::Set(absl::string_view field, const TensorBytes& sent, const v1::SharedTensor* shared,
                               SharedParts::Part SharedParts::*part, const Shape& shape, kernel::TensorView& view) {
  ATTND_ASSIGN_OR_RETURN(const std::int64_t expected, ExpectedBytes(field, shape, view.dtype));
  SetStrides(layout_, shape, view);
  if (shared == nullptr) {
    view.segments = sent.segments.data();
    view.segment_count = static_cast<std::int64_t>(sent.segments.size());
    return CheckBytes(field, expected, shape, view.dtype, sent.size);
  }
  const std::string shared_field = absl::StrCat(field, "_shared");
  ATTND_RETURN_IF_ERROR(CheckShares(shared_field));
  if (sent.size != 0) {
    return InvalidField(field, absl::StrCat("nothing beside ", shared_field), absl::StrCat(sent.size, " bytes"));
  }
  SharedParts::Part& place = Parts().*part;
  ATTND_ASSIGN_OR_RETURN(place.bytes, memory_->Resolve(shared_field, *shared, static_cast<std::size_t>(expected)));
  place.segment = {place.bytes.data, place.bytes.size};
  view.segments = &place.segment;
  view.segment_count = 1;
  return absl::OkStatus();
}

absl::Status TensorPlaces::SetOutput(const v1::SharedTensor& shared, std::int64_t bytes) {
  ATTND_RETURN_IF_ERROR(CheckShares("output_shared"));
  SharedParts& parts = Parts();
  ATTND_ASSIGN_OR_RETURN(parts.output, memory_->Resolve("output_shared", shared, static_cast<std::size_t>(bytes)));
  if (ApartFrom({&parts.q.bytes, &parts.k.bytes, &parts.v.bytes}, parts.output)) return absl::OkStatus();
  return InvalidField("output_shared.offset", "bytes apart from q, k and v", shared.offset());
}

// The offset must be aligned: the kernel writes each float with one store.
absl::Status TensorPlaces::SetLogSumExp(const v1::SharedTensor& shared, std::int64_t bytes) {
  ATTND_RETURN_IF_ERROR(CheckShares("log_sum_exp_shared"));
  if (bytes == 0) {
    return InvalidField("log_sum_exp_shared", "none without return_log_sum_exp", "a place in shared memory");
  }
  if (shared.offset() % alignof(float) != 0) {
    return InvalidField("log_sum_exp_shared.offset", absl::StrCat("a multiple of ", alignof(float)), shared.offset());
  }
  SharedParts& parts = Parts();
  ATTND_ASSIGN_OR_RETURN(parts.log_sum_exp,
                         memory_->Resolve("log_sum_exp_shared", shared, static_cast<std::size_t>(bytes)));
  if (ApartFrom({&parts.q.bytes, &parts.k.bytes, &parts.v.bytes, &parts.output}, parts.log_sum_exp)) {
    return absl::OkStatus();
  }
  return InvalidField("log_sum_exp_shared.offset", "bytes apart from q, k, v and the output", shared.offset());
}

}  // namespace attnd::server
