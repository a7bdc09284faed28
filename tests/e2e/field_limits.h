// The range of each numeric field of a request message, as rows of a table, and what tests of such tables share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace attnd::e2e {

// Sets the field with this path: "layers[0].heads", where the list `layers` has an element. A list of numbers is filled
// up with zeros if it is shorter. Enums and unsigned fields take the value's bits.
void SetNumber(google::protobuf::Message& message, const std::string& path, std::int64_t value);

// The field with this path.
const google::protobuf::FieldDescriptor& FieldAt(const google::protobuf::Descriptor& type, const std::string& path);

// The values just beyond lowest and highest, and the smallest and the largest one of the field's type, as far as they
// are outside.
std::vector<std::int64_t> Beyond(const google::protobuf::FieldDescriptor& field, std::int64_t lowest,
                                 std::int64_t highest);
// The values at lowest and highest, and those just inside.
std::vector<std::int64_t> AtTheEdge(std::int64_t lowest, std::int64_t highest);

// `path` without the numbers of elements: "layers.heads".
std::string WithoutElements(const std::string& path);

// The paths, without elements, of all fields of a message but bools and messages, those inside its messages included.
std::vector<std::string> FieldsOf(const google::protobuf::Descriptor& type);

}  // namespace attnd::e2e
