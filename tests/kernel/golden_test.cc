// Third-party truth: Hugging Face's T5 attention, through bias tables and every kernel.
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bias/bias_table.h"
#include "files/safetensors.h"
#include "gtest/gtest.h"
#include "kernel/kernel.h"
#include "problem.h"

namespace attnd::kernel {
namespace {

struct Tensor {
  std::vector<std::byte> bytes;
  Segment segment;
  files::StoredTensor stored;

  Tensor(const files::SafetensorsFile& file, const char* name) : stored(*file.Find(name)) {
    bytes.resize(static_cast<std::size_t>(stored.size));
    EXPECT_TRUE(file.Read(stored, 0, absl::MakeSpan(bytes)).ok());
    segment = {bytes.data(), bytes.size()};
  }
  TensorView View() const {
    const auto& s = stored.shape;
    return {&segment, 1, *tensor::DTypeFromName(stored.dtype), s[1] * s[2] * s[3], s[2] * s[3], s[3]};
  }
};

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, AgreesWithHuggingFace) {
  auto source = files::OpenFile(std::string(ATTND_GOLDEN_DIR) + "/attention/" + GetParam());
  ASSERT_TRUE(source.ok()) << source.status();
  const auto file = files::SafetensorsFile::Open(*std::move(source));
  ASSERT_TRUE(file.ok()) << file.status();
  const nlohmann::json config = nlohmann::json::parse(file->metadata().find("config")->second);
  const Tensor q(*file, "q"), k(*file, "k"), v(*file, "v");
  const std::vector<float> expected = *file->ReadFloats(*file->Find("o"));

  Attention a{};
  a.batch = q.stored.shape[0];
  a.heads = a.kv_heads = q.stored.shape[1];
  a.query_length = q.stored.shape[2];
  a.key_length = k.stored.shape[2];
  a.head_dim = a.value_head_dim = q.stored.shape[3];
  a.q = q.View();
  a.k = k.View();
  a.v = v.View();
  a.mask = config["causal"].get<bool>() ? Mask::kCausal : Mask::kNone;
  a.scale = config["scale"].get<float>();
  a.query_offset = config["q_offset"].get<std::int64_t>();
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(a.batch), a.key_length);
  if (!config["lengths"].is_null()) {
    lengths = config["lengths"].get<std::vector<std::int64_t>>();
    a.key_lengths = a.query_lengths = lengths.data();
  }
  a.left = config.value("window_left", kAnyDistance);
  a.right = config.value("window_right", kAnyDistance);
  const auto prefix_lengths = config.value("prefix_lengths", std::vector<std::int64_t>());
  if (!prefix_lengths.empty()) a.prefix_lengths = prefix_lengths.data();
  std::vector<float> key_bias;
  if (const files::StoredTensor* stored = file->Find("key_bias")) {
    key_bias = *file->ReadFloats(*stored);
    a.key_bias = key_bias.data();
  }
  const auto table = bias::BiasTable::Create(
      a.heads, bias::T5Rule{config["num_buckets"].get<std::int64_t>(), config["max_distance"].get<std::int64_t>(),
                            config["bidirectional"].get<bool>(),
                            *file->ReadFloats(*file->Find("relative_attention_bias.weight"))});
  ASSERT_TRUE(table.ok()) << table.status();
  const bias::OffsetForm& form = table->offset_form();
  const BiasView bias{form.values.data(),     form.max_offset - form.min_offset + 1,
                      form.min_offset,        form.max_offset,
                      form.constant.data(),   form.low_value.data(),
                      form.high_slope.data(), form.low_slope.data()};
  a.bias = &bias;

  // Logits of L carry an fp32 rounding of some multiples of 2^-24 L before the exponential; see the data's README.
  const double logit = config["max_abs_logit"].get<double>();
  const double tolerance = 8 * 0x1p-24 * std::max(8.0, logit) * config["max_abs_o"].get<double>();
  for (const Kernel* kernel : TestedKernels()) {
    std::vector<float> out(expected.size(), NAN);
    a.out = {reinterpret_cast<std::byte*>(out.data()), tensor::DType::kF32, a.q.batch_stride, a.q.head_stride,
             a.q.row_stride};
    RunAttention(a, *kernel);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i) / a.head_dim % a.query_length;
      const auto batch = static_cast<std::int64_t>(i) / (a.head_dim * a.query_length * a.heads);
      if (row >= lengths[static_cast<std::size_t>(batch)] && a.query_lengths != nullptr) {
        ASSERT_EQ(out[i], 0) << kernel->name << " row " << row << " of batch " << batch << " is beyond its length";
        continue;
      }
      ASSERT_NEAR(out[i], expected[i], tolerance) << kernel->name << " at " << i;
    }
  }
}

std::vector<std::string> Files() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(ATTND_GOLDEN_DIR) + "/attention")) {
    if (entry.path().extension() == ".safetensors") names.push_back(entry.path().filename());
  }
  return names;
}
INSTANTIATE_TEST_SUITE_P(Files, Golden, testing::ValuesIn(Files()),
                         [](const auto& info) { return std::filesystem::path(info.param).stem().string(); });

TEST(GoldenFiles, AreThere) { EXPECT_GE(Files().size(), 22u); }

}  // namespace
}  // namespace attnd::kernel
