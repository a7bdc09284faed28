#include "server/probes/describe.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "google/protobuf/arena.h"
#include "google/protobuf/descriptor.pb.h"
#include "grpcpp/support/status.h"

namespace attnd::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

void SetError(ServerReflectionResponse& response, grpc::StatusCode code, const std::string& message) {
  response.mutable_error_response()->set_error_code(code);
  response.mutable_error_response()->set_error_message(message);
}

// Adds the file and then all files that it imports, directly or indirectly; each once.
void AddFile(const FileDescriptor& file, std::set<const FileDescriptor*>& added,
             grpc::reflection::v1::FileDescriptorResponse& response) {
  if (!added.insert(&file).second) return;
  // One arena per file, freed when the call returns: the response is all that stays.
  google::protobuf::Arena arena;
  auto* const proto = google::protobuf::Arena::CreateMessage<google::protobuf::FileDescriptorProto>(&arena);
  file.CopyTo(proto);
  response.add_file_descriptor_proto(proto->SerializeAsString());
  for (int i = 0; i < file.dependency_count(); ++i) AddFile(*file.dependency(i), added, response);
}

void SetFile(ServerReflectionResponse& response, const FileDescriptor* file, const std::string& what) {
  if (file == nullptr) return SetError(response, grpc::StatusCode::NOT_FOUND, absl::StrCat("no such ", what));
  std::set<const FileDescriptor*> added;
  AddFile(*file, added, *response.mutable_file_descriptor_response());
}

const FileDescriptor* FileOfExtension(const grpc::reflection::v1::ExtensionRequest& request,
                                      const DescriptorPool& pool) {
  const Descriptor* const type = pool.FindMessageTypeByName(request.containing_type());
  if (type == nullptr) return nullptr;
  const FieldDescriptor* const extension = pool.FindExtensionByNumber(type, request.extension_number());
  return extension == nullptr ? nullptr : extension->file();
}

void SetExtensionNumbers(ServerReflectionResponse& response, const std::string& name, const DescriptorPool& pool) {
  const Descriptor* const type = pool.FindMessageTypeByName(name);
  if (type == nullptr) return SetError(response, grpc::StatusCode::NOT_FOUND, "no such message type");
  std::vector<const FieldDescriptor*> extensions;
  pool.FindAllExtensions(type, &extensions);
  auto& numbers = *response.mutable_all_extension_numbers_response();
  numbers.set_base_type_name(type->full_name());
  for (const FieldDescriptor* const extension : extensions) numbers.add_extension_number(extension->number());
}

}  // namespace

void Describe(const ServerReflectionRequest& request, const std::vector<std::string>& services,
              const DescriptorPool& pool, ServerReflectionResponse& response) {
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kFileByFilename:
      SetFile(response, pool.FindFileByName(request.file_by_filename()), "file");
      break;
    case ServerReflectionRequest::kFileContainingSymbol:
      SetFile(response, pool.FindFileContainingSymbol(request.file_containing_symbol()), "symbol");
      break;
    case ServerReflectionRequest::kFileContainingExtension:
      SetFile(response, FileOfExtension(request.file_containing_extension(), pool), "extension");
      break;
    case ServerReflectionRequest::kAllExtensionNumbersOfType:
      SetExtensionNumbers(response, request.all_extension_numbers_of_type(), pool);
      break;
    case ServerReflectionRequest::kListServices: {
      auto& list = *response.mutable_list_services_response();
      for (const std::string& service : services) list.add_service()->set_name(service);
      break;
    }
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      SetError(response, grpc::StatusCode::INVALID_ARGUMENT, "message_request: expected a request, got none");
      break;
  }
}

}  // namespace attnd::server
