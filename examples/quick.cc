#include <cstdio>
#include <vector>

#include "absl/time/time.h"
#include "attnd/client.h"

int main(int argc, char** argv) {
  const std::vector<float> x(8 * 512 * 64, 0.5F);
  attnd::ComputeRequest request;
  request.model = "t5-tiny";
  request.q = request.k = request.v = {x.data(), attnd::DType::kFp32, {1, 8, 512, 64}};  // [batch, heads, tokens, dim]

  auto client = attnd::Client::Create(argc > 1 ? argv[1] : "127.0.0.1:50051").value();
  auto reply = client.Compute(request).value();  // throws if the absl::StatusOr holds an error
  std::printf("computed in %s\n", absl::FormatDuration(reply.compute_time).c_str());
}
