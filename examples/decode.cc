// Decodes with four beams of a trained T5, token by token: the server keeps keys and values, and each step sends only
// those of the new token. Queries and keys are zeros, so the learned bias alone sets the weights; values are positions,
// so the output is the mean position that a head looks at.
//   decode [TARGET]
#include <cstdint>
#include <cstdio>
#include <vector>

#include "attnd/client.h"

namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  auto client = attnd::Client::Create(argc > 1 ? argv[1] : "127.0.0.1:50051");
  if (!client.ok()) return Fail(client.status());

  const std::int64_t beams = 4, heads = 8, dim = 64, tokens = 100;
  attnd::SessionRequest opening;
  opening.model = "t5-tiny";
  opening.rows = beams;
  opening.max_tokens = tokens;
  opening.layers.resize(1);
  opening.layers[0].heads = heads;
  opening.layers[0].head_dim = dim;
  opening.layers[0].value_head_dim = 1;
  auto session = client->OpenSession(opening);
  if (!session.ok()) return Fail(session.status());

  const std::vector<float> zeros(beams * heads * dim);
  std::vector<float> position(beams * heads);
  attnd::StepReply reply;
  for (std::int64_t token = 0; token < tokens; ++token) {
    position.assign(position.size(), static_cast<float>(token));
    attnd::StepRequest step;
    step.q = step.k = {zeros.data(), attnd::DType::kFp32, {beams, heads, 1, dim}};
    step.v = {position.data(), attnd::DType::kFp32, {beams, heads, 1, 1}};
    if (token > 0) step.reorder = {0, 0, 1, 2};  // the best beam continues twice, the worst ends; nothing is copied
    auto stepped = (*session)->Step(step);
    if (!stepped.ok()) return Fail(stepped.status());
    reply = *stepped;
  }
  const auto* looked_at = static_cast<const float*>(reply.output.data());
  for (int head = 0; head < heads; ++head) {
    std::printf("head %d of token %d looks at position %5.1f\n", head, static_cast<int>(tokens - 1), looked_at[head]);
  }
  std::printf("%.1f of %.1f MiB used\n", reply.used_bytes / 1048576.0, (*session)->facts().reserved_bytes / 1048576.0);
}
