// A user's program that compiles the installed .proto files itself and links the library beside them.
#include <iostream>

#include "attnd/client.h"
#include "attnd/v1/attention.pb.h"

int main() {
  attnd::v1::ComputeAttentionRequest message;
  message.set_model("book");
  if (message.GetDescriptor()->full_name() != "attnd.v1.ComputeAttentionRequest") return 1;
  const auto client = attnd::Client::Create("unix:///nonexistent/attnd.sock");
  if (!client.ok()) return 1;
  const absl::Status status = attnd::Client(*client).GetModel("book").status();
  std::cerr << status << "\n";
  return status.code() == absl::StatusCode::kUnavailable ? 0 : 1;
}
