// Makes GGUF files, right and wrong ones, byte by byte.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace attnd::model {

template <typename T>
std::string Raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

inline std::string GgufString(const std::string& text) { return Raw<std::uint64_t>(text.size()) + text; }

// Everything of a file that can be wrong, with values that are right: a T5 with tables of 2 heads and 4 buckets.
struct GgufBuilder {
  struct Metadata {
    std::string key;
    std::uint32_t type;
    std::string value;
  };
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dims;
    std::uint32_t type;
    std::uint64_t offset;
  };

  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::vector<Metadata> metadata = {
      {"general.architecture", 8, GgufString("t5")},
      {"general.alignment", 4, Raw<std::uint32_t>(64)},
      {"t5.attention.relative_buckets_count", 4, Raw<std::uint32_t>(4)},
      {"tokenizer.tokens", 9, Raw<std::uint32_t>(8) + Raw<std::uint64_t>(2) + GgufString("a") + GgufString("bc")},
      {"tokenizer.scores", 9, Raw<std::uint32_t>(6) + Raw<std::uint64_t>(2) + Raw(1.0F) + Raw(2.0F)},
      {"some.flag", 7, std::string(1, '\1')},
  };
  std::vector<Tensor> tensors = {
      {"enc.blk.0.attn_rel_b.weight", {2, 4}, 0, 0},
      {"dec.blk.0.attn_rel_b.weight", {2, 4}, 1, 64},  // F16
      {"token_embd.weight", {64, 3}, 8, 128},          // Q8_0: 6 blocks of 34 bytes
  };
  std::int64_t tensor_count_error = 0;
  std::int64_t metadata_count_error = 0;
  std::size_t alignment = 64;
  std::string data = Data();

  static std::string Data() {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += Raw(static_cast<float>(i));
    bytes.resize(64);
    for (int i = 0; i < 8; ++i) bytes += Raw<std::uint16_t>(0x3C00);  // 1.0
    bytes.resize(128 + 6 * 34);
    return bytes;
  }

  std::string Build() const {
    std::string bytes = magic + Raw(version);
    bytes += Raw(static_cast<std::int64_t>(tensors.size()) + tensor_count_error);
    bytes += Raw(static_cast<std::int64_t>(metadata.size()) + metadata_count_error);
    for (const Metadata& entry : metadata) bytes += GgufString(entry.key) + Raw(entry.type) + entry.value;
    for (const Tensor& tensor : tensors) {
      bytes += GgufString(tensor.name) + Raw(static_cast<std::uint32_t>(tensor.dims.size()));
      for (const std::uint64_t dim : tensor.dims) bytes += Raw(dim);
      bytes += Raw(tensor.type) + Raw(tensor.offset);
    }
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    return bytes + data;
  }
};

}  // namespace attnd::model
