// A datagram sent without copying its tensors.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "client/src/protobuf_wire.h"

namespace attnd::client {

// Serialized fields with up to three tensors among them. The tensors are sent from the caller's memory.
class DatagramParts {
 public:
  DatagramParts() = default;
  DatagramParts(const DatagramParts&) = delete;

  // Append fields to this.
  std::string& text() { return text_; }

  // Appends a tensor as a field of type bytes. Its memory must stay valid until the datagram is sent.
  void AddTensor(int field, const void* data, std::size_t bytes) {
    AppendVarint(BytesTag(field), text_);
    AppendVarint(bytes, text_);
    tensors_[count_++] = {text_.size(), data, bytes};
    tensor_bytes_ += bytes;
  }

  // Bytes of everything appended.
  std::size_t size() const { return text_.size() + tensor_bytes_; }

  // Returns the parts to send: `head`, which must stay valid, then everything appended.
  absl::Span<const iovec> Behind(absl::string_view head) {
    std::size_t count = 0;
    const auto add = [&](const void* data, std::size_t bytes) {
      if (bytes > 0) parts_[count++] = {const_cast<void*>(data), bytes};
    };
    add(head.data(), head.size());
    std::size_t begin = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      add(text_.data() + begin, tensors_[i].text_end - begin);
      add(tensors_[i].data, tensors_[i].bytes);
      begin = tensors_[i].text_end;
    }
    add(text_.data() + begin, text_.size() - begin);
    return absl::MakeConstSpan(parts_.data(), count);
  }

 private:
  struct Tensor {
    std::size_t text_end;  // its position in the text
    const void* data;
    std::size_t bytes;
  };
  std::string text_;
  std::array<Tensor, 3> tensors_{};
  std::size_t count_ = 0, tensor_bytes_ = 0;
  std::array<iovec, 8> parts_{};
};

}  // namespace attnd::client
