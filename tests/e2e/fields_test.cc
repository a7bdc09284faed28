// Whatever a field of a model request can do wrong is refused with an ErrorDetail that names that field and says what
// the message says. (The attention requests: bad_input_test.cc, directly and in a stream.)

#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "e2e_support.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace attnd::e2e {
namespace {

using grpc::StatusCode;

using std::string_view_literals::operator""sv;

struct Row {
  const char* method;
  const char* request;  // in protobuf's text format
  StatusCode code;
  const char* field;  // of the ErrorDetail
};

constexpr StatusCode kInvalid = StatusCode::INVALID_ARGUMENT;
constexpr StatusCode kExhausted = StatusCode::RESOURCE_EXHAUSTED;

constexpr Row kRows[] = {
    {"ListModels", "page_size: -1", kInvalid, "page_size"},
    {"ListModels", "page_size: 1001", kInvalid, "page_size"},
    {"ListModels", "page_token: 'x'", kInvalid, "page_token"},

    {"GetModel", "", kInvalid, "name"},
    {"GetModel", "name: 'a/b/c'", kInvalid, "name"},
    {"GetModel", "name: 'nobody'", StatusCode::NOT_FOUND, "name"},
    {"GetModel", "name: 'test' version: 99", StatusCode::NOT_FOUND, "version"},

    {"LoadModel", "", kInvalid, "path"},
    {"LoadModel", "path: './'", kInvalid, "path"},
    {"LoadModel", "path: 'a\\000'", kInvalid, "path"},
    {"LoadModel", "path: '/etc/passwd'", StatusCode::PERMISSION_DENIED, "path"},
    {"LoadModel", "path: '../good.json'", StatusCode::PERMISSION_DENIED, "path"},
    {"LoadModel", "path: 'link.json'", StatusCode::PERMISSION_DENIED, "path"},
    {"LoadModel", "path: 'none.json'", StatusCode::NOT_FOUND, "path"},
    {"LoadModel", "path: 'bad.json'", kInvalid, "path"},
    {"LoadModel", "path: 'large.json'", kExhausted, "path"},
    {"LoadModel", "path: 'good.json' name: 'a/b/c'", kInvalid, "name"},
    {"LoadModel", "path: 'good.json' name: 'test'", StatusCode::ALREADY_EXISTS, "name"},
    {"LoadModel", "path: 'gone.json'", StatusCode::ALREADY_EXISTS, "name"},
    {"LoadModel", "path: 'good.json'", kExhausted, "name"},  // one model more than the limit

    {"ReloadModel", "", kInvalid, "name"},
    {"ReloadModel", "name: 'nobody'", StatusCode::NOT_FOUND, "name"},
    {"ReloadModel", "name: 'test'", StatusCode::FAILED_PRECONDITION, "name"},
    {"ReloadModel", "name: 'gone'", StatusCode::NOT_FOUND, "name"},

    {"UnloadModel", "", kInvalid, "name"},
    {"UnloadModel", "name: 'nobody'", StatusCode::NOT_FOUND, "name"},

    {"UploadTable", "table {heads: 1 alibi {slopes: 1}}", kInvalid, "model"},
    {"UploadTable", "model: '.' table {heads: 1 alibi {slopes: 1}}", kInvalid, "model"},
    {"UploadTable", "model: 'book' table {heads: 1 alibi {slopes: 1}}", StatusCode::ALREADY_EXISTS, "model"},
    {"UploadTable", "model: 'more' table {heads: 1 alibi {slopes: 1}}", kExhausted, "model"},
    {"UploadTable", "model: 'test'", kInvalid, "table.heads"},
    {"UploadTable", "model: 'test' table {heads: 2}", kInvalid, "table.rule"},
    {"UploadTable", "model: 'test' table {heads: -1 alibi {slopes: 1}}", kInvalid, "table.heads"},
    {"UploadTable", "model: 'test' table {name: 'decoder.1' heads: 1 alibi {slopes: 1}}", kInvalid, "table.heads"},
    {"UploadTable", "model: 'test' table {name: 'middle' heads: 2 alibi {slopes: [1, 2]}}", kInvalid, "table.name"},
    {"UploadTable", "model: 'test' table {heads: 2 alibi {slopes: [1, 2]}}", StatusCode::ALREADY_EXISTS, "table.name"},
    {"UploadTable", "model: 'm' table {heads: 1 t5 {num_buckets: 1 max_distance: 6}}", kInvalid,
     "table.t5.num_buckets"},
    {"UploadTable", "model: 'm' table {heads: 1 t5 {num_buckets: 4 max_distance: 2}}", kInvalid,
     "table.t5.max_distance"},
    {"UploadTable", "model: 'm' table {heads: 1 t5 {num_buckets: 4 max_distance: 562949953421312}}", kInvalid,
     "table.t5.max_distance"},
    {"UploadTable", "model: 'm' table {heads: 1 t5 {num_buckets: 4 max_distance: 99999999 values: [1, 2, 3, 4]}}",
     kExhausted, "table.t5.max_distance"},
    {"UploadTable", "model: 'm' table {heads: 1 t5 {num_buckets: 4 max_distance: 6 values: [1, 2, 3]}}", kInvalid,
     "table.t5.values"},
    {"UploadTable", "model: 'm' table {heads: 1 t5 {num_buckets: 4 max_distance: 6 values: [1, 2, nan, 4]}}", kInvalid,
     "table.t5.values[2]"},
    {"UploadTable", "model: 'm' table {heads: 1 t5 {num_buckets: 2 max_distance: 6 values: [-3e38, 3e38]}}", kInvalid,
     "table.t5.values"},
    {"UploadTable", "model: 'm' table {heads: 2 alibi {slopes: [1]}}", kInvalid, "table.alibi.slopes"},
    {"UploadTable", "model: 'm' table {heads: 2 alibi {slopes: [1, inf]}}", kInvalid, "table.alibi.slopes[1]"},
    {"UploadTable", "model: 'm' table {heads: 2 per_offset {values: [1]}}", kInvalid, "table.per_offset.values"},
    {"UploadTable", "model: 'm' table {heads: 1 per_offset {min_offset: -1 values: [1]}}", kInvalid,
     "table.bidirectional"},
    {"UploadTable", "model: 'm' table {heads: 1 per_offset {min_offset: 4294967297 values: [1]}}", kInvalid,
     "table.per_offset.min_offset"},
    {"UploadTable", "model: 'm' table {heads: 1 per_offset {values: [1, -inf]}}", kInvalid,
     "table.per_offset.values[1]"},

    {"GetBias", "query_count: 1 key_count: 1", kInvalid, "model"},
    {"GetBias", "model: 'nobody' query_count: 1 key_count: 1", StatusCode::NOT_FOUND, "model"},
    {"GetBias", "model: 'test' version: 7 query_count: 1 key_count: 1", StatusCode::NOT_FOUND, "version"},
    {"GetBias", "model: 'test' table: 'x' query_count: 1 key_count: 1", StatusCode::NOT_FOUND, "table"},
    {"GetBias", "model: 'test' query_count: 0 key_count: 1", kInvalid, "query_count"},
    {"GetBias", "model: 'test' query_count: 1 key_count: -1", kInvalid, "key_count"},
    {"GetBias", "model: 'test' query_count: 1 key_count: 1 query_start: -1", kInvalid, "query_start"},
    {"GetBias", "model: 'test' query_count: 1 key_count: 1 key_start: 2147483647", kInvalid, "key_start"},
    {"GetBias", "model: 'test' query_count: 1 key_count: 1 mask: 9", kInvalid, "mask"},
    {"GetBias", "model: 'test' query_count: 1 key_count: 1 heads: [1, 2]", kInvalid, "heads[1]"},
    {"GetBias", "model: 'test' query_count: 1000 key_count: 1000", kExhausted, "query_count"},
};

// Fields of which every value is right.
const std::set<std::string> kAlwaysRight = {"GetModel.include_values", "UploadTable.replace"};

class FieldsTest : public testing::Test {
 protected:
  static constexpr std::size_t kMaxModels = 10;

  void SetUp() override {
    std::filesystem::remove_all(root_);
    std::filesystem::create_directories(root_);
    constexpr char kGood[] = R"({"tables": {"decoder": {"rule": "alibi", "slopes": [0.5]}}})";
    Write("good.json", kGood);
    Write("gone.json", kGood);
    Write("bad.json", R"({"tables": {"decoder": {"rule": "alibi", "slopes": ["€\u0000"]}}})");
    Write("large.json", std::string(1001, ' '));
    std::filesystem::create_symlink("/etc/passwd", root_ / "link.json");
    server::Options options = TestOptions();
    options.model_root = root_;
    options.limits.max_models = kMaxModels;
    options.limits.max_table_values = 1000;
    options.limits.max_bias_cells = 1000;
    options.limits.max_model_file_bytes = 1000;
    server_ = std::make_unique<TestServer>(options);  // loads good and gone beside the embedded models
    std::filesystem::remove(root_ / "gone.json");
    ASSERT_TRUE(server_->server().registry().Unload("good").ok());
  }

  // Loads models until one more would be beyond the limit.
  void Fill() {
    model::Registry& registry = server_->server().registry();
    while (registry.List("", 100).size() < kMaxModels) {
      ASSERT_TRUE(registry.Load("fill" + std::to_string(registry.List("", 100).size()), "good.json").ok());
    }
  }

  void Write(const std::string& name, const std::string& text) { std::ofstream(root_ / name) << text; }

  grpc::Status Call(const std::string& method, const std::string& text) {
    const google::protobuf::MethodDescriptor* const found = Service().FindMethodByName(method);
    const std::unique_ptr<google::protobuf::Message> request(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(found->input_type())->New());
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, request.get())) << text;
    std::string reply;
    return RawCall(server_->channel(), "/" + Service().full_name() + "/" + method,
                   {grpc::Slice(request->SerializeAsString())}, &reply);
  }

  static const google::protobuf::ServiceDescriptor& Service() {
    return *v1::ListModelsRequest::descriptor()->file()->FindServiceByName("ModelService");
  }

  const std::filesystem::path root_ = std::filesystem::path(testing::TempDir()) / "attnd_fields_test";
  std::unique_ptr<TestServer> server_;
};

TEST_F(FieldsTest, AreNamedByTheErrorsThatTheyCause) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(std::string(row.method) + " " + row.request);
    if (row.code == kExhausted && (row.field == "name"sv || row.field == "model"sv)) Fill();
    const grpc::Status status = Call(row.method, row.request);
    EXPECT_EQ(status.error_code(), row.code) << status.error_message();
    const v1::ErrorDetail detail = DetailOf(status);
    EXPECT_EQ(detail.field(), row.field) << status.error_message();
    EXPECT_NE(detail.expected(), "");
    EXPECT_EQ(status.error_message(), detail.field() + ": expected " + detail.expected() + ", got " + detail.got());
  }
}

// A new field needs a row, or a reason why it needs none.
TEST_F(FieldsTest, HaveARowEach) {
  std::set<std::string> named = kAlwaysRight;
  for (const Row& row : kRows) {
    // "UploadTable.table.t5.values" names itself and what it is in.
    std::string path = std::string(row.method) + "." + row.field;
    path = path.substr(0, path.find('['));
    for (std::size_t end = path.size(); end != std::string::npos; end = path.rfind('.', end - 1)) {
      named.insert(path.substr(0, end));
      if (end == 0) break;
    }
  }
  std::vector<std::pair<std::string, const google::protobuf::Descriptor*>> messages;
  for (int i = 0; i < Service().method_count(); ++i) {
    messages.emplace_back(Service().method(i)->name(), Service().method(i)->input_type());
  }
  while (!messages.empty()) {
    const auto [path, type] = messages.back();
    messages.pop_back();
    for (int i = 0; i < type->field_count(); ++i) {
      const std::string field = path + "." + type->field(i)->name();
      EXPECT_TRUE(named.contains(field)) << field;
      if (type->field(i)->message_type() != nullptr) messages.emplace_back(field, type->field(i)->message_type());
    }
  }
}

}  // namespace
}  // namespace attnd::e2e
