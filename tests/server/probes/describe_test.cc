#include "server/probes/describe.h"

#include <set>
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/text_format.h"
#include "grpc/health/v1/health.pb.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptorProto;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

// Files that import each other: top imports left and right, both import base, which has extensions from right.
class DescribeTest : public testing::Test {
 protected:
  DescribeTest() {
    Add(R"(name: "base.proto" package: "p" syntax: "proto2"
           message_type { name: "Base" field { name: "f" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL }
                          extension_range { start: 100 end: 200 } })");
    Add(R"(name: "left.proto" package: "p" dependency: "base.proto" enum_type { name: "Left" value { name: "L" number: 0 } })");
    Add(R"(name: "right.proto" package: "p" syntax: "proto2" dependency: "base.proto"
           extension { name: "x" number: 150 extendee: ".p.Base" type: TYPE_INT32 label: LABEL_OPTIONAL }
           extension { name: "y" number: 120 extendee: ".p.Base" type: TYPE_INT32 label: LABEL_OPTIONAL })");
    Add(R"(name: "top.proto" package: "p" syntax: "proto3" dependency: "left.proto" dependency: "right.proto"
           dependency: "base.proto"
           service { name: "Service" method { name: "Call" input_type: ".p.Base" output_type: ".p.Base" } })");
  }

  ServerReflectionResponse Ask(const std::string& text) {
    ServerReflectionRequest request;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
    ServerReflectionResponse response;
    Describe(request, {"p.Service", "q.Other"}, pool_, response);
    EXPECT_EQ(response.original_request().SerializeAsString(), request.SerializeAsString());
    EXPECT_EQ(response.valid_host(), request.host());
    return response;
  }

  // The names of the files in an answer, in order.
  static std::vector<std::string> Files(const ServerReflectionResponse& response) {
    std::vector<std::string> names;
    for (const std::string& bytes : response.file_descriptor_response().file_descriptor_proto()) {
      FileDescriptorProto file;
      EXPECT_TRUE(file.ParseFromString(bytes));
      names.push_back(file.name());
    }
    return names;
  }

  void Add(const std::string& text) {
    FileDescriptorProto file;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &file)) << text;
    ASSERT_NE(pool_.BuildFile(file), nullptr) << text;
  }

  DescriptorPool pool_;
};

TEST_F(DescribeTest, AFileComesFirstAndEachImportOnce) {
  EXPECT_THAT(Files(Ask(R"(file_by_filename: "base.proto")")), ElementsAre("base.proto"));
  EXPECT_THAT(Files(Ask(R"(host: "h" file_by_filename: "top.proto")")),
              ElementsAre("top.proto", "left.proto", "base.proto", "right.proto"));
}

TEST_F(DescribeTest, EverySymbolIsInItsFile) {
  for (const char* symbol : {"p.Service", "p.Service.Call"}) {
    EXPECT_EQ(Files(Ask(std::string("file_containing_symbol: \"") + symbol + "\""))[0], "top.proto") << symbol;
  }
  for (const char* symbol : {"p.Base", "p.Base.f"}) {
    EXPECT_THAT(Files(Ask(std::string("file_containing_symbol: \"") + symbol + "\"")), ElementsAre("base.proto"));
  }
  for (const char* symbol : {"p.Left", "p.L"}) {
    EXPECT_EQ(Files(Ask(std::string("file_containing_symbol: \"") + symbol + "\""))[0], "left.proto") << symbol;
  }
}

TEST_F(DescribeTest, Extensions) {
  EXPECT_EQ(Files(Ask(R"(file_containing_extension { containing_type: "p.Base" extension_number: 150 })"))[0],
            "right.proto");
  const auto numbers = Ask(R"(all_extension_numbers_of_type: "p.Base")").all_extension_numbers_response();
  EXPECT_EQ(numbers.base_type_name(), "p.Base");
  EXPECT_THAT(numbers.extension_number(), UnorderedElementsAre(120, 150));
}

TEST_F(DescribeTest, Services) {
  const auto list = Ask(R"(list_services: "")").list_services_response();
  ASSERT_EQ(list.service_size(), 2);
  EXPECT_EQ(list.service(0).name(), "p.Service");
  EXPECT_EQ(list.service(1).name(), "q.Other");
}

TEST_F(DescribeTest, WhatIsNotThere) {
  for (const char* request :
       {R"(file_by_filename: "no.proto")", R"(file_by_filename: "")", R"(file_containing_symbol: "p.No")",
        R"(file_containing_symbol: "")", R"(all_extension_numbers_of_type: "p.No")",
        R"(file_containing_extension { containing_type: "p.Base" extension_number: 151 })",
        R"(file_containing_extension { containing_type: "p.No" extension_number: 150 })"}) {
    const ServerReflectionResponse response = Ask(request);
    EXPECT_EQ(response.error_response().error_code(), grpc::StatusCode::NOT_FOUND) << request;
    EXPECT_NE(response.error_response().error_message(), "") << request;
  }
  EXPECT_EQ(Ask("").error_response().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace attnd::server
