// Each number of a model request at its limits and one beyond. The fields' other faults: fields_test.cc.

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "e2e_support.h"
#include "field_limits.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace attnd::e2e {
namespace {

using google::protobuf::Message;
using grpc::StatusCode;

constexpr std::int64_t kMaxPosition = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kFarthest = std::int64_t{1} << 48;
constexpr std::int64_t kMaxStart = std::int64_t{1} << 32;

// The numbers that a field may have in a request that is right otherwise.
struct Range {
  const char* method;
  const char* request;  // in protobuf's text format
  const char* field;
  std::int64_t lowest, highest;
  std::string expected;
};

constexpr char kT5[] =
    "model: 'm' replace: true table {heads: 1 t5 {values: [1, 2, 3, 4] num_buckets: 4 max_distance: 9}}";
constexpr char kTwoSidedT5[] =
    "model: 'm' replace: true table {heads: 1 bidirectional: true t5 {values: [1, 2, 3, 4] num_buckets: 4 "
    "max_distance: 9}}";
constexpr char kWindow[] = "model: 'test' query_count: 3 key_count: 4";

std::vector<Range> Ranges() {
  const auto at_most = [](std::int64_t most) { return "0 to " + std::to_string(most); };
  return {
      {"ListModels", "", "page_size", 0, 1000, "0 to 1000"},
      {"GetBias", kWindow, "query_start", 0, kMaxPosition - 3, at_most(kMaxPosition - 3)},
      {"GetBias", kWindow, "key_start", 0, kMaxPosition - 4, at_most(kMaxPosition - 4)},
      // 4 keys x 2 heads fill a window of a thousand cells.
      {"GetBias", kWindow, "query_count", 1, 125, "1 to 2147483647"},
      {"GetBias", "model: 'test' query_count: 4 key_count: 1", "key_count", 1, 125, "1 to 2147483647"},
      {"GetBias", kWindow, "mask", 0, 2, "MASK_CAUSAL, MASK_NONE or unset"},
      {"GetBias", kWindow, "heads[0]", 0, 1, "0 to 1"},
      {"GetBias", kWindow, "heads[1]", 0, 1, "0 to 1"},
      {"UploadTable", kT5, "table.t5.num_buckets", 4, 4, ""},
      // Half of the buckets have a distance each.
      {"UploadTable", kT5, "table.t5.max_distance", 3, kFarthest, "more than 2 (the distances with a bucket each)"},
      {"UploadTable", kTwoSidedT5, "table.t5.max_distance", 2, kFarthest,
       "more than 1 (the distances with a bucket each)"},
      {"UploadTable", "model: 'm' replace: true table {heads: 1 per_offset {values: [1, 2]}}",
       "table.per_offset.min_offset", 0, kMaxStart, ""},
      {"UploadTable", "model: 'm' replace: true table {heads: 1 bidirectional: true per_offset {values: [1, 2]}}",
       "table.per_offset.min_offset", -kMaxStart, -1, ""},
      {"UploadTable", "model: 'two' replace: true table {heads: 2 alibi {slopes: [1, 2]}}", "table.heads", 2, 2, ""},
  };
}

class ModelLimitsTest : public testing::Test {
 protected:
  ModelLimitsTest() : server_(Options()) {}

  static server::Options Options() {
    server::Options options = TestOptions();
    options.limits.max_bias_cells = 1000;
    options.limits.max_table_values = 1000;
    return options;
  }

  static const google::protobuf::ServiceDescriptor& Service() {
    return *v1::ListModelsRequest::descriptor()->file()->FindServiceByName("ModelService");
  }

  static std::unique_ptr<Message> NewRequest(const std::string& method, const std::string& text) {
    const auto* const found = Service().FindMethodByName(method);
    std::unique_ptr<Message> request(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(found->input_type())->New());
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, request.get())) << text;
    return request;
  }

  grpc::Status Call(const std::string& method, const Message& request) {
    std::string reply;
    return RawCall(server_.channel(), "/" + Service().full_name() + "/" + method,
                   {grpc::Slice(request.SerializeAsString())}, &reply);
  }
  grpc::Status Call(const std::string& method, const std::string& text) {
    return Call(method, *NewRequest(method, text));
  }

  TestServer server_;
};

TEST_F(ModelLimitsTest, NumbersAtTheirLimits) {
  for (const Range& range : Ranges()) {
    for (const std::int64_t value : AtTheEdge(range.lowest, range.highest)) {
      SCOPED_TRACE(testing::Message() << range.method << " " << range.field << " " << value);
      const std::unique_ptr<Message> request = NewRequest(range.method, range.request);
      SetNumber(*request, range.field, value);
      const grpc::Status status = Call(range.method, *request);
      const bool far = value >= kFarthest - 1;  // such a table may be too large
      EXPECT_TRUE(status.ok() || (far && status.error_code() == StatusCode::RESOURCE_EXHAUSTED))
          << status.error_message();
    }
  }
}

TEST_F(ModelLimitsTest, NumbersBeyondTheirLimits) {
  for (const Range& range : Ranges()) {
    const std::unique_ptr<Message> request = NewRequest(range.method, range.request);
    for (const std::int64_t value :
         Beyond(FieldAt(*request->GetDescriptor(), range.field), range.lowest, range.highest)) {
      SCOPED_TRACE(testing::Message() << range.method << " " << range.field << " " << value);
      SetNumber(*request, range.field, value);
      const grpc::Status status = Call(range.method, *request);
      const v1::ErrorDetail detail = DetailOf(status);
      EXPECT_NE(detail.field(), "") << status.error_message();
      EXPECT_EQ(status.error_message(), detail.field() + ": expected " + detail.expected() + ", got " + detail.got());
      if (status.error_code() == StatusCode::RESOURCE_EXHAUSTED)
        continue;  // within the field's range, too large for a limit
      EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << status.error_message();
      if (range.expected.empty()) continue;
      EXPECT_EQ(detail.field(), range.field);
      if (!range.expected.starts_with("more than") || value < range.lowest) {
        EXPECT_EQ(detail.expected(), range.expected);
      }
      EXPECT_EQ(detail.got(), std::to_string(value));
    }
  }
}

// What is refused for its range, and what for --max_bias_cells: the first count that no window has.
TEST_F(ModelLimitsTest, CountsOfAWindow) {
  const struct {
    const char* request;
    StatusCode code;
    const char* field;
  } kCases[] = {
      {"query_count: 125 key_count: 4", StatusCode::OK, ""},
      {"query_count: 126 key_count: 4", StatusCode::RESOURCE_EXHAUSTED, "query_count"},
      {"query_count: 250 key_count: 4 heads: 1", StatusCode::OK, ""},
      {"query_count: 251 key_count: 4 heads: 1", StatusCode::RESOURCE_EXHAUSTED, "query_count"},
      {"query_count: 1 key_count: 4 heads: [1, 0, 1]", StatusCode::OK, ""},
      {"query_count: 84 key_count: 4 heads: [1, 0, 1]", StatusCode::RESOURCE_EXHAUSTED, "query_count"},
      {"query_count: 83 key_count: 4 heads: [1, 0, 1]", StatusCode::OK, ""},
      {"query_count: 2147483647 key_count: 1", StatusCode::RESOURCE_EXHAUSTED, "query_count"},
      {"query_count: 2147483648 key_count: 1", StatusCode::INVALID_ARGUMENT, "query_count"},
      {"query_count: 1 key_count: 2147483647", StatusCode::RESOURCE_EXHAUSTED, "query_count"},
      {"query_count: 1 key_count: 2147483648", StatusCode::INVALID_ARGUMENT, "key_count"},
      {"query_count: 2147483647 key_count: 2147483647", StatusCode::RESOURCE_EXHAUSTED, "query_count"},
      {"query_count: 2147483647 key_count: 1 query_start: 1", StatusCode::INVALID_ARGUMENT, "query_start"},
  };
  for (const auto& c : kCases) {
    const grpc::Status status = Call("GetBias", std::string("model: 'test' ") + c.request);
    EXPECT_EQ(status.error_code(), c.code) << c.request << ": " << status.error_message();
    EXPECT_EQ(DetailOf(status).field(), c.field) << c.request;
  }
}

TEST_F(ModelLimitsTest, SizesOfTables) {
  const auto values = [](const std::string& rule, int count) {
    std::string text = "model: 'm' replace: true table {heads: 2 " + rule + " values: [0.5";
    for (int i = 1; i < count; ++i) text += ", 0.5";
    return text + "]}}";
  };
  const struct {
    std::string request;
    StatusCode code;
  } kCases[] = {
      {values("per_offset {", 1000), StatusCode::OK},
      {values("per_offset {", 1002), StatusCode::RESOURCE_EXHAUSTED},
      {values("per_offset {", 999), StatusCode::INVALID_ARGUMENT},
      {values("t5 {num_buckets: 2 max_distance: 499", 4), StatusCode::OK},
      {values("t5 {num_buckets: 1 max_distance: 9", 2), StatusCode::INVALID_ARGUMENT},
      {values("t5 {num_buckets: 2 max_distance: 9", 3), StatusCode::INVALID_ARGUMENT},
      {values("t5 {num_buckets: 2 max_distance: 9", 5), StatusCode::INVALID_ARGUMENT},
      {values("bidirectional: true t5 {num_buckets: 4 max_distance: 9", 8), StatusCode::OK},
      {values("bidirectional: true t5 {num_buckets: 3 max_distance: 9", 6), StatusCode::INVALID_ARGUMENT},
  };
  for (const auto& c : kCases) {
    const grpc::Status status = Call("UploadTable", c.request);
    EXPECT_EQ(status.error_code(), c.code) << c.request.substr(0, 120) << ": " << status.error_message();
    const std::string prefix = "table";
    if (!status.ok()) {
      EXPECT_THAT(DetailOf(status).field(), testing::StartsWith(prefix));
    }
  }
}

// What is held of T5's formula: a value for each offset up to where the last bucket begins.
TEST_F(ModelLimitsTest, FarT5Tables) {
  const auto upload = [&](std::int64_t distance) {
    return Call("UploadTable",
                "model: 'm' replace: true table {heads: 1 t5 {num_buckets: 4 values: [1, 2, 3, 4] max_distance: " +
                    std::to_string(distance) + "}}");
  };
  std::int64_t accepted = 3, refused = kFarthest;
  ASSERT_TRUE(upload(accepted).ok());
  while (refused - accepted > 1) {
    const std::int64_t middle = accepted + (refused - accepted) / 2;
    (upload(middle).ok() ? accepted : refused) = middle;
  }
  const grpc::Status status = upload(refused);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), testing::HasSubstr("1000 values"));
  EXPECT_THAT(DetailOf(status).got(), testing::HasSubstr("1001"));
  EXPECT_EQ(upload(kFarthest).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(upload(kFarthest + 1).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(ModelLimitsTest, LengthsOfNames) {
  const auto upload = [&](const std::string& name) {
    return Call("UploadTable", "model: '" + name + "' replace: true table {heads: 1 alibi {slopes: 1}}");
  };
  const std::string longest(128, 'a'), in_two = std::string(64, 'b') + "/" + std::string(63, 'c');
  EXPECT_TRUE(upload(longest).ok());
  EXPECT_TRUE(upload(in_two).ok());
  EXPECT_TRUE(upload("a").ok());
  for (const std::string& name : {std::string(), longest + "a", in_two + "c"}) {
    const grpc::Status status = upload(name);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << name;
    EXPECT_EQ(DetailOf(status).field(), "model");
  }
  EXPECT_EQ(Call("GetModel", "name: '" + longest + "'").error_code(), StatusCode::OK);
  EXPECT_EQ(Call("GetModel", "name: '" + std::string(128, 'z') + "'").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(Call("GetModel", "name: '" + longest + "a'").error_code(), StatusCode::INVALID_ARGUMENT);
}

// Of a model, two thousand.
TEST_F(ModelLimitsTest, TablesOfAModel) {
  const auto upload = [&](int number) {
    return Call("UploadTable", "model: 'many' table {name: '" + std::string(number < 1000 ? "decoder." : "encoder.") +
                                   std::to_string(number % 1000) + "' heads: 1 bidirectional: " +
                                   (number < 1000 ? "false" : "true") + " alibi {slopes: 1}}");
  };
  for (int number = 0; number < 2000; ++number) {
    const grpc::Status status = upload(number);
    ASSERT_TRUE(status.ok()) << number << ": " << status.error_message();
  }
  const grpc::Status refused = Call("UploadTable", "model: 'many' table {name: 'decoder' heads: 1 alibi {slopes: 1}}");
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(refused.error_message(), "table: expected at most 2000 tables in a model, got one more");
}

// A new number has a range.
TEST_F(ModelLimitsTest, EveryNumberHasALimit) {
  // Numbers whose every value names something that is there or is not; lists of values: SizesOfTables.
  std::set<std::string> known = {"GetModel.version", "GetBias.version", "UploadTable.table.t5.values",
                                 "UploadTable.table.alibi.slopes", "UploadTable.table.per_offset.values"};
  for (const Range& range : Ranges()) known.insert(std::string(range.method) + "." + WithoutElements(range.field));
  for (int i = 0; i < Service().method_count(); ++i) {
    const auto& method = *Service().method(i);
    for (const std::string& path : FieldsOf(*method.input_type())) {
      const auto type = FieldAt(*method.input_type(), path).cpp_type();
      if (type == google::protobuf::FieldDescriptor::CPPTYPE_STRING) continue;  // fields_test.cc, LengthsOfNames
      EXPECT_TRUE(known.contains(method.name() + "." + path)) << method.name() << "." << path;
    }
  }
}

}  // namespace
}  // namespace attnd::e2e
