#include "server/probes/probes.h"

#include <utility>

#include "google/protobuf/message.h"

namespace attnd::server {
namespace {

std::vector<std::string> WithOurs(std::vector<std::string> services) {
  services.emplace_back(grpc::health::v1::Health::service_full_name());
  services.emplace_back(grpc::reflection::v1::ServerReflection::service_full_name());
  services.emplace_back(grpc::reflection::v1alpha::ServerReflection::service_full_name());
  return services;
}

}  // namespace

Probes::Probes(std::vector<std::string> services)
    : services_(std::move(services)),
      listed_(WithOurs(services_)),
      health_(streams_),
      reflection_(listed_, streams_),
      reflection_alpha_(listed_, streams_) {
  // Nothing else uses the messages of v1alpha, and without a use the linker drops their descriptors.
  google::protobuf::LinkMessageReflection<grpc::reflection::v1alpha::ServerReflectionRequest>();
}

void Probes::Register(grpc::ServerBuilder& builder) {
  builder.RegisterService(&health_);
  builder.RegisterService(&reflection_);
  builder.RegisterService(&reflection_alpha_);
}

void Probes::SetServing(bool serving) {
  health_.Set("", serving);
  for (const std::string& service : services_) health_.Set(service, serving);
}

}  // namespace attnd::server
