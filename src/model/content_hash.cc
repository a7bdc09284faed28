#include "model/content_hash.h"

#include <openssl/evp.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"

namespace attnd::model {
namespace {

class Hasher {
 public:
  Hasher() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }

  void Add(const void* data, std::size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
  void Add(std::int64_t value) { Add(&value, sizeof(value)); }
  void Add(std::string_view text) {
    Add(static_cast<std::int64_t>(text.size()));
    Add(text.data(), text.size());
  }
  void Add(const std::vector<float>& values) {
    Add(static_cast<std::int64_t>(values.size()));
    Add(values.data(), values.size() * sizeof(float));
  }

  void operator()(const bias::T5Rule& rule) {
    Add(rule.num_buckets);
    Add(rule.max_distance);
    Add(static_cast<std::int64_t>(rule.bidirectional));
    Add(rule.values);
  }
  void operator()(const bias::AlibiRule& rule) {
    Add(static_cast<std::int64_t>(rule.bidirectional));
    Add(rule.slopes);
  }
  void operator()(const bias::PerOffsetRule& rule) {
    Add(rule.min_offset);
    Add(rule.values);
  }

  // 32 bytes.
  std::string Digest() {
    std::string digest(EVP_MAX_MD_SIZE, '\0');
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), &size);
    digest.resize(size);
    return digest;
  }

 private:
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string TableHash(const bias::BiasTable& table) {
  Hasher hasher;
  hasher.Add(table.heads());
  hasher.Add(static_cast<std::int64_t>(table.rule().index()));
  std::visit(hasher, table.rule());
  return hasher.Digest();
}

TableHashes HashesOf(const std::map<std::string, bias::BiasTable>& tables) {
  TableHashes hashes;
  for (const auto& [name, table] : tables) hashes.emplace(name, TableHash(table));
  return hashes;
}

std::string ContentHash(const TableHashes& hashes) {
  Hasher hasher;
  for (const auto& [name, hash] : hashes) {
    hasher.Add(std::string_view(name));
    hasher.Add(hash.data(), hash.size());
  }
  return absl::BytesToHexString(hasher.Digest());
}

}  // namespace attnd::model
