// Errors of the server name fields of attnd.v1; attnctl names its flags. Each field of a request that a command sends
// has its words, and a flag among them is one of that command.
#include "client/attnctl/field_words.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "attnd/v1/attention.pb.h"
#include "attnd/v1/model.pb.h"
#include "attnd/v1/session.pb.h"
#include "client/attnctl/commands.h"

namespace attnd::ctl {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;

// All fields of a message by their paths, and the enums among them.
void Collect(const Descriptor& message, const std::string& prefix, std::set<std::string>& paths,
             std::set<const EnumDescriptor*>& enums) {
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    const std::string path = absl::StrCat(prefix, field.name());
    paths.insert(path);
    if (field.enum_type() != nullptr) enums.insert(field.enum_type());
    if (field.message_type() != nullptr) Collect(*field.message_type(), path + ".", paths, enums);
  }
}

const Descriptor* Message(const std::string& name) {
  // The files are linked: their messages are used.
  for (const Descriptor* any : {v1::ComputeAttentionRequest::descriptor(), v1::GetBiasRequest::descriptor(),
                                v1::EvictSessionRequest::descriptor()}) {
    if (const Descriptor* found = any->file()->FindMessageTypeByName(name)) return found;
  }
  return nullptr;
}

std::map<std::string, std::string> WordsOf(const std::string& message) {
  std::map<std::string, std::string> words;
  for (const FieldWords& entry : AllFieldWords()) {
    if (entry.message != message) continue;
    EXPECT_TRUE(words.emplace(entry.field, entry.words == nullptr ? "" : entry.words).second) << entry.field;
  }
  return words;
}

TEST(FieldWords, EveryFieldOfEveryRequestHasWords) {
  std::set<std::string> sent;
  std::set<const EnumDescriptor*> enums;
  for (const Command& command : Commands()) {
    if (command.request.empty() || !sent.insert(command.request).second) continue;
    const Descriptor* message = Message(command.request);
    ASSERT_NE(message, nullptr) << command.request;
    std::set<std::string> paths;
    Collect(*message, "", paths, enums);
    const auto words = WordsOf(command.request);
    for (const std::string& path : paths) {
      EXPECT_EQ(words.count(path), 1) << command.request << "." << path
                                      << " is not in client/attnctl/field_table.cc: say which flag it is, or none";
    }
  }
  EXPECT_GE(sent.size(), 8U);
  std::set<std::string> named;
  for (const EnumWords& entry : AllEnumWords()) EXPECT_TRUE(named.insert(entry.name).second) << entry.name;
  for (const EnumDescriptor* type : enums) {
    for (int i = 0; i < type->value_count(); ++i) {
      if (type->value(i)->number() == 0) continue;
      EXPECT_EQ(named.count(type->value(i)->name()), 1) << type->value(i)->name();
    }
  }
}

TEST(FieldWords, WordsAreFlagsAndArgumentsOfTheCommand) {
  const Flags flags;
  for (const Command& command : Commands()) {
    for (const auto& [field, words] : WordsOf(command.request)) {
      for (const std::string& word : std::vector<std::string>(absl::StrSplit(words, ' '))) {
        if (absl::StartsWith(word, "--")) {
          const Flag* flag = flags.Find(word.substr(2));
          EXPECT_TRUE(flag != nullptr && Takes(command, flags, *flag)) << command.name << " " << field << ": " << word;
        }
        if (word == "MODEL" || word == "PATH" || word == "ID") {
          std::vector<std::string> arguments = ArgumentsOf(command);
          for (std::string& argument : arguments) argument = argument.substr(0, argument.find('.'));
          EXPECT_EQ(std::count(arguments.begin(), arguments.end(), word), 1) << command.name << " " << field;
        }
        EXPECT_FALSE(absl::StrContains(word, "_") && !absl::StartsWith(word, "--")) << field << ": " << words;
      }
    }
  }
}

TEST(FieldWords, AnErrorIsSaidInWords) {
  constexpr char kAttention[] = "ComputeAttentionRequest";
  const struct {
    const char* message;
    ErrorDetail detail;
    const char* said;
  } kCases[] = {
      {kAttention,
       {"heads", "8 (the heads of table \"decoder\" of model \"m\"), or first_head to be set", "16"},
       "the axes of q, heads: expected 8 (the heads of table \"decoder\" of model \"m\"), got 16"},
      {kAttention,
       {"query_offsets", "none beside query_offset", "1 values"},
       "--query_offsets: expected none beside --query_offset, got 1 values"},
      {kAttention,
       {"table", "none with BIAS_NONE", "\"encoder\""},
       "--table: expected none with --bias none, got \"encoder\""},
      {kAttention, {"key_starts[3]", "0 to 512", "513"}, "--key_starts[3]: expected 0 to 512, got 513"},
      {kAttention, {"k.dtype", "DTYPE_FP32", "DTYPE_FP16"}, "the element type of k: expected F32, got F16"},
      {kAttention,
       {"output", "a result of at most 8 bytes (--max_result_bytes)", "more"},
       "output: expected a result of at most 8 bytes (attnd's --max_result_bytes), got more"},
      {kAttention,
       {"log_sum_exp_shared", "none without return_log_sum_exp", "a place in shared memory"},
       "log sum exp shared: expected none without --lse, got a place in shared memory"},
      {"GetBiasRequest", {"heads[0]", "0 to 3", "7"}, "--head or --heads: expected 0 to 3, got 7"},
      {"GetBiasRequest", {"query_count", "1 to 7", "9"}, "--queries: expected 1 to 7, got 9"},
      {"GetModelRequest",
       {"name", "a loaded model", "\"query_offset\""},
       "MODEL: expected a loaded model, got \"query_offset\""},
      {"UploadTableRequest",
       {"table.bidirectional", "true exactly if table.per_offset.min_offset is negative", "true"},
       "bidirectional of a table in PATH: expected true exactly if the least offset of a table in PATH is negative, "
       "got "
       "true"},
      {"", {"target", "host:port", "x"}, "target: expected host:port, got x"},
  };
  for (const auto& c : kCases) EXPECT_EQ(InWords(c.message, c.detail), c.said);
}

TEST(FieldWords, AnAxisIsKnownAsOne) {
  EXPECT_TRUE(IsAboutAxes("ComputeAttentionRequest", {"heads", "8", "16"}));
  EXPECT_TRUE(IsAboutAxes("ComputeAttentionRequest", {"v.sequence", "8", "16"}));
  EXPECT_FALSE(IsAboutAxes("ComputeAttentionRequest", {"key_lengths", "8", "16"}));
  EXPECT_FALSE(IsAboutAxes("GetBiasRequest", {"heads", "8", "16"}));
}

}  // namespace
}  // namespace attnd::ctl
