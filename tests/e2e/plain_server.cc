// A gRPC server with none of attnd's settings and methods that are not implemented: what gRPC does by itself.

#include <unistd.h>

#include <iostream>
#include <memory>

#include "attnd/v1/attention.grpc.pb.h"
#include "grpcpp/grpcpp.h"

int main() {
  attnd::v1::AttentionService::Service service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  // As attnd says it.
  std::cout << "listens on 127.0.0.1:" << port << ", (some threads)" << std::endl;
  while (true) pause();
}
