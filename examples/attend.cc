// How far back does each head of a trained T5 look? With queries and keys of zeros the learned bias alone decides, and
// with values that are distances the output is the mean distance.
//   attend [TARGET]
#include <cstdint>
#include <cstdio>
#include <vector>

#include "attnd/client.h"

int main(int argc, char** argv) {
  auto client = attnd::Client::Create(argc > 1 ? argv[1] : "127.0.0.1:50051");
  if (!client.ok()) {
    std::fprintf(stderr, "%s\n", client.status().ToString().c_str());
    return 1;
  }

  // One query after 512 keys, 8 heads of 64; one value for each key.
  const std::int64_t heads = 8, keys = 512, dim = 64;
  const std::vector<float> q(heads * dim), k(heads * keys * dim);
  std::vector<float> v;
  for (std::int64_t i = 0; i < heads * keys; ++i) v.push_back(static_cast<float>(keys - 1 - i % keys));

  attnd::ComputeRequest request;
  request.model = "t5-tiny";
  request.q = {q.data(), attnd::DType::kFp32, {1, heads, 1, dim}};
  request.k = {k.data(), attnd::DType::kFp32, {1, heads, keys, dim}};
  request.v = {v.data(), attnd::DType::kFp32, {1, heads, keys, 1}};

  auto reply = client->Compute(request);
  if (!reply.ok()) {
    std::fprintf(stderr, "%s\n", reply.status().ToString().c_str());
    return 1;
  }
  const auto* distance = static_cast<const float*>(reply->output.data());
  for (int head = 0; head < heads; ++head) std::printf("head %d looks %6.1f tokens back\n", head, distance[head]);
}
