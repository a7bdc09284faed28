#include "wire/codec_check.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/wire/codec.h"

namespace attnd::server {
namespace {

std::string Joined(const TensorBytes& tensor) {
  std::string bytes;
  for (const kernel::Segment& segment : tensor.segments) {
    bytes.append(reinterpret_cast<const char*>(segment.data), segment.size);
  }
  return bytes;
}

template <typename Message>
std::string Difference(const grpc::ByteBuffer& message, const std::string& bytes) {
  const absl::StatusOr<Decoded<Message>> decoded = Decode<Message>(message, kMaxHeaderBytes);
  Message expected;
  const bool parsed = expected.ParseFromString(bytes);
  if (absl::IsResourceExhausted(decoded.status())) {
    return bytes.size() > static_cast<std::size_t>(kMaxHeaderBytes) ? "" : "refused as too large a header";
  }
  if (decoded.ok() != parsed) {
    return absl::StrCat("protobuf ", parsed ? "accepts" : "refuses",
                        " it, the codec says: ", decoded.status().ToString());
  }
  if (!parsed) return "";
  const RequestTensors& tensors = decoded->tensors();
  if (Joined(tensors.q) != expected.q() || tensors.q.size != expected.q().size()) return "q differs";
  if (Joined(tensors.k) != expected.k() || tensors.k.size != expected.k().size()) return "k differs";
  if (Joined(tensors.v) != expected.v() || tensors.v.size != expected.v().size()) return "v differs";
  expected.clear_q();
  expected.clear_k();
  expected.clear_v();
  if (decoded->header.SerializeAsString() != expected.SerializeAsString()) return "the small fields differ";
  return "";
}

}  // namespace

grpc::ByteBuffer InSlices(absl::string_view bytes, absl::string_view cuts) {
  std::vector<grpc::Slice> slices;
  std::size_t cut = 0;
  while (!bytes.empty()) {
    const std::size_t size = cuts.empty() ? bytes.size() : static_cast<unsigned char>(cuts[cut++ % cuts.size()]);
    const absl::string_view piece = bytes.substr(0, size);
    slices.emplace_back(piece.data(), piece.size());
    bytes.remove_prefix(piece.size());
    // A run of empty slices alone would never end.
    if (cuts.find_first_not_of('\0') == absl::string_view::npos) cuts = {};
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

std::string DifferenceFromProtobuf(const grpc::ByteBuffer& message, const std::string& bytes) {
  const std::string unary = Difference<v1::ComputeAttentionRequest>(message, bytes);
  return unary.empty() ? Difference<v1::StreamAttentionRequest>(message, bytes) : unary;
}

}  // namespace attnd::server
