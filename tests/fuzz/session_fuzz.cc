// A session's opening and its steps. The input: a SessionOpen, and steps, each a byte and a SessionStep; every message
// after two bytes of its size. Of the byte the lowest bit says whether there are tensors, of the sizes that the step
// comes to, and the next bit whether the step is kept.
#include "server/session/session.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attnd/v1/session.pb.h"
#include "check.h"
#include "input.h"
#include "kernel/kernel.h"
#include "kernel/registry.h"
#include "model/registry.h"
#include "schedule/arena.h"
#include "schedule/attention_work.h"
#include "server/attention/engine.h"
#include "server/rpc/status.h"
#include "server/session/session_shape.h"
#include "server/wire/buffer.h"
#include "wire/codec_check.h"

namespace attnd::server {
namespace {

using fuzz::Check;

constexpr std::int64_t kMostBytes = 1 << 26;  // of what a session reserves, of a tensor, and of what is computed

struct World {
  World() { Check(registry.AddEmbedded().ok(), "the embedded models are valid"); }
  SilentProtobuf silent;
  model::Registry registry{{}};
  std::vector<std::byte> zeros = std::vector<std::byte>(kMostBytes);
};

void CheckRefusal(const absl::Status& status) {
  const auto detail = DetailOf(status);
  Check(detail.has_value() && !detail->field().empty() && !detail->expected().empty(), "a refusal names its field");
  Check(status.message().size() < 2000, "a refusal is short");
}

// As many bytes of zeros as a tensor of these sizes has; as many as fit if those are too many.
TensorBytes Zeros(const World& world, std::int64_t count, std::int64_t heads, std::int64_t rows, std::int64_t dim,
                  v1::Dtype dtype) {
  const __int128 bytes =
      static_cast<__int128>(count) * heads * std::max<std::int64_t>(0, rows) * dim * (dtype == v1::DTYPE_FP32 ? 4 : 2);
  TensorBytes tensor;
  tensor.Add({world.zeros.data(), static_cast<std::size_t>(std::min<__int128>(bytes, kMostBytes))});
  tensor.size = tensor.segments[0].size;
  return tensor;
}

void Compute(ValidAttention& valid) {
  kernel::Attention& a = valid.attention;
  const double pairs = static_cast<double>(a.batch * a.heads) * static_cast<double>(a.query_length * a.key_length);
  if (pairs * static_cast<double>(a.head_dim + a.value_head_dim) > 1e6) return;
  valid.PointToBias();
  const absl::StatusOr<Buffer> output = Buffer::Create(static_cast<std::size_t>(valid.output_bytes));
  const absl::StatusOr<Buffer> sums = Buffer::Create(static_cast<std::size_t>(valid.log_sum_exp_bytes));
  if (!output.ok() || !sums.ok()) return;
  a.out.data = output->data();
  a.log_sum_exp = reinterpret_cast<float*>(sums->data());
  const std::unique_ptr<schedule::Work> work = schedule::MakeAttentionWork(a, *kernel::AvailableKernels().back());
  schedule::Arena arena;
  while (const std::optional<schedule::Item> item = work->Next()) {
    work->Run(*item, arena, [] { return true; });
    work->Finish(*item);
  }
}

void TakeStep(const World& world, Session& session, fuzz::Input& input) {
  const auto choices = input.Take<std::uint8_t>();
  const absl::string_view bytes = input.Block();
  v1::SessionStep step;
  if (!step.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const SessionShape& shape = session.shape();
  RequestTensors tensors;
  const bool known = step.layer() >= 0 && step.layer() < static_cast<std::int64_t>(shape.layers.size());
  if (known && (choices & 1) != 0) {
    const SessionLayer& layer = shape.layers[static_cast<std::size_t>(step.layer())];
    const std::int64_t count = layer.is_self ? shape.rows : shape.sources;
    const cache::LayerShape& kept = layer.kept;
    if (step.query_length() > 0) {
      tensors.q = Zeros(world, shape.rows, layer.heads, step.query_length(), kept.head_dim, step.dtype());
    }
    if (step.key_length() > 0) {
      tensors.k = Zeros(world, count, kept.kv_heads, step.key_length(), kept.head_dim, step.dtype());
      tensors.v = Zeros(world, count, kept.kv_heads, step.key_length(), kept.value_head_dim, step.dtype());
    }
  }
  const std::int64_t used = session.used_bytes();
  const std::uint64_t last = session.last_step();
  absl::StatusOr<std::optional<ValidAttention>> begun = session.Begin(step, tensors);
  Check(session.used_bytes() <= shape.reserved_bytes(), "a session uses no more than it has reserved");
  if (!begun.ok()) {
    CheckRefusal(begun.status());
    Check(session.used_bytes() == used && session.last_step() == last, "a refused step changes nothing");
    return;
  }
  if (begun->has_value()) Compute(**begun);
  const bool keep = (choices & 2) != 0;
  session.End(keep);
  if (keep) {
    Check(session.last_step() == step.step(), "a step that is kept is the last one");
  } else {
    Check(session.used_bytes() == used && session.last_step() == last, "a step that is taken back changes nothing");
  }
  Check(session.used_bytes() <= shape.reserved_bytes(), "a session uses no more than it has reserved");
}

void Run(const World& world, fuzz::Input input) {
  v1::SessionOpen open;
  const absl::string_view bytes = input.Block();
  if (!open.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  absl::StatusOr<SessionShape> shape = CheckOpen(open, Limits{}, world.registry);
  if (!shape.ok()) return CheckRefusal(shape.status());
  if (shape->reserved_bytes() > kMostBytes) return;
  const absl::StatusOr<std::unique_ptr<Session>> session =
      Session::Create(*std::move(shape), Limits{}, nullptr, AttentionEngine::kAnyBytes);
  Check(session.ok(), "there is room for a small session");
  for (int step = 0; step < 64 && !input.empty(); ++step) TakeStep(world, **session, input);
}

}  // namespace
}  // namespace attnd::server

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const attnd::server::World& world = *new attnd::server::World;
  attnd::server::Run(world, attnd::fuzz::Input(data, size));
  return 0;
}
