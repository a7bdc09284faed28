#include "field_limits.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"

namespace attnd::e2e {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// "heads[1]" is {"heads", 1}; -1 without an element.
std::pair<std::string, int> Parsed(const std::string& part) {
  const std::size_t bracket = part.find('[');
  if (bracket == std::string::npos) return {part, -1};
  int element = -1;
  EXPECT_TRUE(absl::SimpleAtoi(part.substr(bracket + 1, part.size() - bracket - 2), &element)) << part;
  return {part.substr(0, bracket), element};
}

template <typename T>
std::pair<std::int64_t, std::int64_t> Range() {
  // Of unsigned 64 bits as bits: the largest one is -1, and there is none below 0.
  if (std::is_same_v<T, std::uint64_t>) return {0, std::numeric_limits<std::int64_t>::max()};
  return {static_cast<std::int64_t>(std::numeric_limits<T>::min()),
          static_cast<std::int64_t>(std::numeric_limits<T>::max())};
}

std::pair<std::int64_t, std::int64_t> RangeOf(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64:
      return Range<std::int64_t>();
    case FieldDescriptor::CPPTYPE_UINT64:
      return Range<std::uint64_t>();
    case FieldDescriptor::CPPTYPE_UINT32:
      return Range<std::uint32_t>();
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_ENUM:
      return Range<std::int32_t>();
    default:
      ADD_FAILURE() << field.full_name() << " is no number";
      return {};
  }
}

void SetSingle(const Reflection& reflection, Message& message, const FieldDescriptor& field, std::int64_t value) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection.SetInt64(&message, &field, value);
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection.SetUInt64(&message, &field, static_cast<std::uint64_t>(value));
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection.SetUInt32(&message, &field, static_cast<std::uint32_t>(value));
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.SetInt32(&message, &field, static_cast<std::int32_t>(value));
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection.SetEnumValue(&message, &field, static_cast<int>(value));
    default:
      ADD_FAILURE() << field.full_name() << " is no number";
  }
}

void Collect(const Descriptor& type, const std::string& prefix, std::vector<std::string>& fields) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (field.message_type() != nullptr) {
      Collect(*field.message_type(), absl::StrCat(prefix, field.name(), "."), fields);
    } else if (field.cpp_type() != FieldDescriptor::CPPTYPE_BOOL) {
      fields.push_back(absl::StrCat(prefix, field.name()));
    }
  }
}

}  // namespace

void SetNumber(Message& message, const std::string& path, std::int64_t value) {
  Message* inner = &message;
  std::vector<std::string> parts = absl::StrSplit(path, '.');
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto [name, element] = Parsed(parts[i]);
    const Reflection& reflection = *inner->GetReflection();
    const FieldDescriptor* const field = inner->GetDescriptor()->FindFieldByName(name);
    ASSERT_NE(field, nullptr) << path;
    if (i + 1 < parts.size()) {
      inner = field->is_repeated() ? reflection.MutableRepeatedMessage(inner, field, element)
                                   : reflection.MutableMessage(inner, field);
    } else if (field->is_repeated()) {
      ASSERT_EQ(field->cpp_type(), FieldDescriptor::CPPTYPE_INT64) << path;
      while (reflection.FieldSize(*inner, field) <= element) reflection.AddInt64(inner, field, 0);
      reflection.SetRepeatedInt64(inner, field, element, value);
    } else {
      SetSingle(reflection, *inner, *field, value);
    }
  }
}

const FieldDescriptor& FieldAt(const Descriptor& type, const std::string& path) {
  const Descriptor* inner = &type;
  const FieldDescriptor* field = nullptr;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(path, '.'))) {
    field = inner->FindFieldByName(Parsed(part).first);
    inner = field->message_type();
  }
  return *field;
}

std::vector<std::int64_t> Beyond(const FieldDescriptor& field, std::int64_t lowest, std::int64_t highest) {
  const auto [least, most] = RangeOf(field);
  std::vector<std::int64_t> values;
  if (lowest > least) values = {lowest - 1, least};
  if (highest < most) values.insert(values.end(), {highest + 1, most});
  return values;
}

std::vector<std::int64_t> AtTheEdge(std::int64_t lowest, std::int64_t highest) {
  std::vector<std::int64_t> values = {lowest, highest};
  if (highest - lowest > 1) values.insert(values.end(), {lowest + 1, highest - 1});
  return values;
}

std::string WithoutElements(const std::string& path) {
  std::string fields;
  bool inside = false;
  for (const char c : path) {
    inside = inside || c == '[';
    if (!inside) fields.push_back(c);
    inside = inside && c != ']';
  }
  return fields;
}

std::vector<std::string> FieldsOf(const Descriptor& type) {
  std::vector<std::string> fields;
  Collect(type, "", fields);
  return fields;
}

}  // namespace attnd::e2e
