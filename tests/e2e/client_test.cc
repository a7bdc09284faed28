// The real server binary and the client library, against third-party truth: what Hugging Face computed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "attnd/client.h"
#include "files/byte_source.h"
#include "files/safetensors.h"
#include "nlohmann/json.hpp"
#include "process.h"

namespace attnd::e2e {
namespace {

const std::string kGolden = ATTND_GOLDEN_DIR;

// A golden file: its tensors as the client takes them, and what its metadata says.
class Golden {
 public:
  explicit Golden(const std::string& path)
      : file_(*files::SafetensorsFile::Open(*files::OpenFile(kGolden + "/" + path))), name_(path) {
    const auto config = file_.metadata().find("config");
    if (config != file_.metadata().end()) config_ = nlohmann::json::parse(config->second);
    for (const auto& [bytes, name] : {std::pair{&q_, "q"}, std::pair{&k_, "k"}, std::pair{&v_, "v"}})
      Load(name, *bytes);
    request_.q = View("q", q_);
    request_.k = View("k", k_);
    request_.v = View("v", v_);
    request_.output_dtype = DType::kFp32;
    request_.product_precision = ProductPrecision::kFp32;
  }
  Golden(const Golden&) = delete;

  ComputeRequest& request() { return request_; }
  const nlohmann::json& config() const { return config_; }
  bool Has(const std::string& name) const { return file_.Find(name) != nullptr; }
  std::vector<float> Floats(const std::string& name) const { return *file_.ReadFloats(*file_.Find(name)); }
  const files::StoredTensor& Stored(const std::string& name) const { return *file_.Find(name); }

  // The error that fp32 arithmetic may make: of a logit, its rounding by the norms of q and k (sums of d products round
  // like sqrt(d)) and by the bias; of the softmax, twice that; of the output, as much of the largest value.
  double Tolerance() const {
    constexpr double kRounding = 0x1p-24;
    const auto dim = static_cast<double>(request_.q.sizes[3]);
    const double of_keys = Has("key_bias") ? Largest(Floats("key_bias")) : 0;
    const double bias = Largest(Floats("relative_attention_bias.weight")) + of_keys;
    const double logit = std::abs(config_.value("scale", 1.0)) * LongestRow("q") * LongestRow("k") + bias;
    return Largest(Floats("v")) * 2 * kRounding * (logit * (std::sqrt(dim) + 4) + 16);
  }

  void ExpectOutput(const absl::StatusOr<ComputeReply>& reply, const std::string& tensor, double tolerance) const {
    ASSERT_TRUE(reply.ok()) << name_ << ": " << reply.status();
    const std::vector<float> expected = Floats(tensor);
    ASSERT_EQ(reply->output.size_bytes(), expected.size() * sizeof(float)) << name_;
    const auto* got = static_cast<const float*>(reply->output.data());
    double largest = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (!Defined(i)) continue;
      const double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
      largest = std::max(largest, std::isnan(error) ? HUGE_VAL : error);
    }
    EXPECT_LE(largest, tolerance) << name_;
    RecordMax(largest, tolerance);
  }

 private:
  void Load(const std::string& name, std::vector<std::byte>& bytes) {
    bytes.resize(static_cast<std::size_t>(Stored(name).size));
    EXPECT_TRUE(file_.Read(Stored(name), 0, absl::MakeSpan(bytes)).ok());
  }
  TensorView View(const std::string& name, const std::vector<std::byte>& bytes) const {
    TensorView view{bytes.data(), DType::kFp32, {}};
    const files::StoredTensor& stored = Stored(name);
    view.dtype = stored.dtype == "F32" ? DType::kFp32 : stored.dtype == "F16" ? DType::kFp16 : DType::kBf16;
    std::copy(stored.shape.begin(), stored.shape.end(), view.sizes.begin());
    return view;
  }
  static double Largest(const std::vector<float>& values) {
    double largest = 0;
    for (const float value : values) largest = std::max(largest, std::abs(static_cast<double>(value)));
    return largest;
  }
  double LongestRow(const std::string& name) const {
    const std::vector<float> values = Floats(name);
    const auto dim = static_cast<std::size_t>(Stored(name).shape[3]);
    double longest = 0;
    for (std::size_t row = 0; row < values.size(); row += dim) {
      double squares = 0;
      for (std::size_t d = 0; d < dim; ++d) squares += std::pow(static_cast<double>(values[row + d]), 2);
      longest = std::max(longest, std::sqrt(squares));
    }
    return longest;
  }
  // Whether the reference says anything of an output element: not of rows beyond a sequence's length.
  bool Defined(std::size_t element) const {
    if (request_.query_lengths.empty()) return true;
    const auto& s = request_.q.sizes;
    const auto row = static_cast<std::int64_t>(element) / request_.v.sizes[3];
    return row % s[2] < request_.query_lengths[static_cast<std::size_t>(row / s[2] / s[1])];
  }
  void RecordMax(double error, double tolerance) const {
    testing::Test::RecordProperty(name_, absl::StrCat(error, " of ", tolerance));
  }

  files::SafetensorsFile file_;
  std::string name_;
  nlohmann::json config_;
  std::vector<std::byte> q_, k_, v_;
  ComputeRequest request_;
};

class ClientTest : public testing::Test {
 protected:
  ClientTest()
      : server_({"--listen=127.0.0.1:0", "--model_root=" + kGolden + "/checkpoints"}),
        client_(*Client::Create(server_.WaitForAddress())) {}

  std::string Bytes(const ComputeRequest& request) {
    const auto reply = client_.Compute(request);
    EXPECT_TRUE(reply.ok()) << reply.status();
    if (!reply.ok()) return "";
    return std::string(static_cast<const char*>(reply->output.data()), reply->output.size_bytes());
  }

  Process server_;
  Client client_;
};

TEST_F(ClientTest, ActivationsOfATrainedModel) {
  Golden golden("trained/t5-tiny_decoder0_512.safetensors");
  golden.request().model = "t5-tiny";
  // Logits reach 330 here, so fp32 itself is off by some 2e-5: the data's README says to judge against 1e-4.
  for (const char* reference : {"o", "o_hf"}) {
    golden.ExpectOutput(client_.Compute(golden.request()), reference, 1e-4);
    golden.ExpectOutput(client_.ComputeFuture(golden.request()).get(), reference, 1e-4);
  }
}

TEST_F(ClientTest, HuggingFaceForwardPasses) {
  int cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden + "/hf")) {
    if (entry.path().extension() != ".safetensors") continue;
    const std::string name = entry.path().stem().string();
    Golden golden("hf/" + entry.path().filename().string());
    ComputeRequest& request = golden.request();
    request.model = golden.config()["checkpoint"];
    const std::size_t side = name.find("_dec") != std::string::npos ? name.find("_dec") : name.find("_enc");
    request.table = absl::StrCat(name[side + 1] == 'd' ? "decoder." : "encoder.", name.substr(side + 4, 1));
    golden.ExpectOutput(client_.Compute(request), "o", golden.Tolerance());
    ++cases;
  }
  EXPECT_EQ(cases, 10);
}

// An uploaded table named as its rule asks.
Table TableOf(const Golden& golden) {
  const auto& c = golden.config();
  const std::vector<float> values = golden.Floats("relative_attention_bias.weight");
  return {"", golden.Stored("relative_attention_bias.weight").shape[1], c["bidirectional"],
          T5Buckets{c["num_buckets"], c["max_distance"], values}};
}

TEST_F(ClientTest, ReferenceCasesWithUploadedTables) {
  int cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden + "/attention")) {
    if (entry.path().extension() != ".safetensors") continue;
    Golden golden("attention/" + entry.path().filename().string());
    const auto& config = golden.config();
    const std::string model = "case-" + entry.path().stem().string();
    const auto uploaded = client_.UploadTable(model, TableOf(golden));
    ASSERT_TRUE(uploaded.ok()) << uploaded.status();
    ComputeRequest& request = golden.request();
    request.model = model;
    request.table = config["bidirectional"] ? "encoder" : "decoder";
    request.mask = config["causal"] ? Mask::kCausal : Mask::kNone;
    request.scale = config["scale"].get<float>();
    request.query_offset = config["q_offset"].get<std::int64_t>();
    if (config.contains("lengths") && !config["lengths"].is_null()) {
      request.query_lengths = request.key_lengths = config["lengths"].get<std::vector<std::int64_t>>();
    }
    if (config.contains("window_left")) request.window_left = config["window_left"].get<std::int64_t>();
    if (config.contains("window_right")) request.window_right = config["window_right"].get<std::int64_t>();
    request.prefix_lengths = config.value("prefix_lengths", std::vector<std::int64_t>());
    if (golden.Has("key_bias")) request.key_bias = golden.Floats("key_bias");
    golden.ExpectOutput(client_.Compute(request), "o", golden.Tolerance());
    ++cases;
  }
  EXPECT_GE(cases, 22);
}

TEST_F(ClientTest, GoodCallIsTheSameAfterBadOnes) {
  Golden golden("hf/t5_fp32_dec0.safetensors");
  golden.request().model = "t5_fp32";
  const std::string before = Bytes(golden.request());
  struct {
    void (*breaks)(ComputeRequest&);
    absl::StatusCode code;
    const char* field;
  } const bad[] = {
      {[](ComputeRequest& r) { r.model = "nobody"; }, absl::StatusCode::kNotFound, ""},
      {[](ComputeRequest& r) { r.version = 99; }, absl::StatusCode::kNotFound, ""},
      {[](ComputeRequest& r) { r.table = "decoder.x"; }, absl::StatusCode::kNotFound, ""},
      {[](ComputeRequest& r) { r.model = "../t5_fp32"; }, absl::StatusCode::kInvalidArgument, ""},
      {[](ComputeRequest& r) { r.model = "book"; }, absl::StatusCode::kInvalidArgument, "heads"},
      {[](ComputeRequest& r) { r.first_head = 3; }, absl::StatusCode::kInvalidArgument, "first_head"},
      {[](ComputeRequest& r) { r.mask = static_cast<Mask>(9); }, absl::StatusCode::kInvalidArgument, "mask"},
      {[](ComputeRequest& r) { r.key_lengths = {41}; }, absl::StatusCode::kInvalidArgument, "key_lengths[0]"},
  };
  for (const auto& b : bad) {
    ComputeRequest request = golden.request();
    b.breaks(request);
    const absl::Status status = client_.Compute(request).status();
    EXPECT_EQ(status.code(), b.code) << status;
    EXPECT_FALSE(status.message().empty());
    if (*b.field != '\0') {
      const auto detail = GetErrorDetail(status);
      ASSERT_TRUE(detail.has_value()) << status;
      EXPECT_EQ(detail->field, b.field);
    }
    EXPECT_EQ(Bytes(golden.request()), before);
  }
}

TEST_F(ClientTest, ModelsComeAndGo) {
  EXPECT_EQ(client_.LoadModel("t5_fp32", "again")->name, "again");
  EXPECT_EQ(client_.LoadModel("t5_fp32", "again").status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(client_.ReloadModel("again")->version, 2U);
  EXPECT_EQ(client_.GetModel("again")->content_hash, client_.GetModel("t5_fp32")->content_hash);
  EXPECT_TRUE(client_.UnloadModel("again").ok());
  EXPECT_EQ(client_.GetModel("again").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_.LoadModel("../secret").status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(client_.ReloadModel("book").status().code(), absl::StatusCode::kFailedPrecondition);
  const auto models = client_.ListModels();
  ASSERT_TRUE(models.ok()) << models.status();
  EXPECT_TRUE(
      std::is_sorted(models->begin(), models->end(), [](const Model& a, const Model& b) { return a.name < b.name; }));
  EXPECT_GT(client_.GetServerInfo()->threads, 0);
}

}  // namespace
}  // namespace attnd::e2e
