#include "server/config/flags.h"

#include <unistd.h>

#include <fstream>
#include <functional>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/byte_size.h"
#include "server/config/version.h"

namespace attnd::server {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::ExitedWithCode;
using testing::HasSubstr;
using testing::Not;

// The options of a command line that holds `arguments`. Flags keep their values until `saver_` puts them back.
class FlagsTest : public testing::Test {
 protected:
  static absl::StatusOr<Options> Parse(std::vector<std::string> arguments) {
    const absl::FlagSaver saver;
    arguments.insert(arguments.begin(), "attnd");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    return OptionsFromCommandLine(static_cast<int>(arguments.size()), argv.data());
  }

  // As Parse, with standard output on standard error, where a death test looks.
  static void ParseAloud(const std::vector<std::string>& arguments) {
    dup2(STDERR_FILENO, STDOUT_FILENO);
    const absl::StatusOr<Options> options = Parse(arguments);
    std::cerr << "went on: " << options.status() << std::endl;
    std::_Exit(99);
  }
};

// Expects that two sets of options differ in nothing. Names every field, so that a new one does not compile.
void ExpectSame(const Options& got, const Options& expected) {
  const auto& [listen, unix_socket_mode, shared_memory, local_calls, model_root, strict_models, threads, kernel, limits,
               peer_shares, trusted_proxies, drain, keepalive_time, keepalive_timeout, min_ping_interval,
               handshake_time, max_connection_idle, max_connection_age, max_connection_age_grace, stall, min_rate,
               max_queue_time, max_sessions, max_peer_sessions, session_lease, session_idle, session_life,
               session_grace, receive_ahead, log_level] = got;
  EXPECT_EQ(listen, expected.listen);
  EXPECT_EQ(unix_socket_mode, expected.unix_socket_mode);
  EXPECT_EQ(shared_memory, expected.shared_memory);
  EXPECT_EQ(local_calls, expected.local_calls);
  EXPECT_EQ(model_root, expected.model_root);
  EXPECT_EQ(strict_models, expected.strict_models);
  EXPECT_EQ(threads, expected.threads);
  EXPECT_EQ(kernel, expected.kernel);
  for (const LimitRow& row : LimitRows()) EXPECT_EQ(limits.*row.value, expected.limits.*row.value) << row.name;
  EXPECT_EQ(peer_shares, expected.peer_shares);
  EXPECT_EQ(trusted_proxies, expected.trusted_proxies);
  EXPECT_EQ(drain, expected.drain);
  EXPECT_EQ(keepalive_time, expected.keepalive_time);
  EXPECT_EQ(keepalive_timeout, expected.keepalive_timeout);
  EXPECT_EQ(min_ping_interval, expected.min_ping_interval);
  EXPECT_EQ(handshake_time, expected.handshake_time);
  EXPECT_EQ(max_connection_idle, expected.max_connection_idle);
  EXPECT_EQ(max_connection_age, expected.max_connection_age);
  EXPECT_EQ(max_connection_age_grace, expected.max_connection_age_grace);
  EXPECT_EQ(stall, expected.stall);
  EXPECT_EQ(min_rate, expected.min_rate);
  EXPECT_EQ(max_queue_time, expected.max_queue_time);
  EXPECT_EQ(max_sessions, expected.max_sessions);
  EXPECT_EQ(max_peer_sessions, expected.max_peer_sessions);
  EXPECT_EQ(session_lease, expected.session_lease);
  EXPECT_EQ(session_idle, expected.session_idle);
  EXPECT_EQ(session_life, expected.session_life);
  EXPECT_EQ(session_grace, expected.session_grace);
  EXPECT_EQ(receive_ahead, expected.receive_ahead);
  EXPECT_EQ(log_level, expected.log_level);
}

// The flags of attnd itself, apart from those of the libraries.
std::set<std::string> OwnFlags() {
  std::set<std::string> names;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (absl::EndsWith(flag->Filename(), "server/config/flags.cc")) names.emplace(name);
  }
  EXPECT_GT(names.size(), LimitRows().size());
  return names;
}

TEST_F(FlagsTest, WithoutFlagsEverythingIsTheDefault) {
  const absl::StatusOr<Options> options = Parse({});
  ASSERT_TRUE(options.ok()) << options.status();
  ExpectSame(*options, Options());
}

TEST_F(FlagsTest, EachFlagSetsItsOptionAndNoOther) {
  const struct {
    std::vector<std::string> arguments;
    std::function<void(Options&)> change;
  } kCases[] = {
      {{"--listen=localhost:1,[::1]:2,unix:/a"},
       [](Options& o) {
         o.listen = {"localhost:1", "[::1]:2", "unix:/a"};
       }},
      {{"--listen", "127.0.0.1:0"}, [](Options& o) { o.listen = {"127.0.0.1:0"}; }},
      {{"--max_connection_streams=5"}, [](Options& o) { o.limits.max_connection_streams = 5; }},
      {{"--max_connections=7"}, [](Options& o) { o.limits.max_connections = 7; }},
      {{"--max_peer_connections=3"}, [](Options& o) { o.limits.max_peer_connections = 3; }},
      {{"--handshake_time=3s"}, [](Options& o) { o.handshake_time = absl::Seconds(3); }},
      {{"--max_connection_idle=5m"}, [](Options& o) { o.max_connection_idle = absl::Minutes(5); }},
      {{"--max_reads=32"}, [](Options& o) { o.limits.max_reads = 32; }},
      {{"--noreceive_ahead"}, [](Options& o) { o.receive_ahead = false; }},
      {{"--unix_socket_mode=0600"}, [](Options& o) { o.unix_socket_mode = 0600; }},
      {{"--unix_socket_mode=777"}, [](Options& o) { o.unix_socket_mode = 0777; }},
      {{"--shared_memory", "--local_calls"}, [](Options& o) { o.shared_memory = o.local_calls = true; }},
      {{"--noshared_memory"}, [](Options& o) { o.shared_memory = false; }},
      {{"--nolocal_calls"}, [](Options& o) { o.local_calls = false; }},
      {{"--nopeer_shares"}, [](Options& o) { o.peer_shares = false; }},
      {{"--trusted_proxies=10.0.0.0/8,fd00::1"},
       [](Options& o) {
         o.trusted_proxies = {"10.0.0.0/8", "fd00::1"};
       }},
      {{"--model_root=/models"}, [](Options& o) { o.model_root = "/models"; }},
      {{"-model_root=a folder"}, [](Options& o) { o.model_root = "a folder"; }},
      {{"--model_root=/models", "--strict_models"},
       [](Options& o) {
         o.model_root = "/models";
         o.strict_models = true;
       }},
      {{"--threads=4096"}, [](Options& o) { o.threads = 4096; }},
      {{"--threads", "1"}, [](Options& o) { o.threads = 1; }},
      {{"--kernel=x86-64-v2"}, [](Options& o) { o.kernel = "x86-64-v2"; }},
      {{"--drain_seconds=0"}, [](Options& o) { o.drain = absl::ZeroDuration(); }},
      {{"--drain_seconds=0.25"}, [](Options& o) { o.drain = absl::Milliseconds(250); }},
      {{"--keepalive_time=inf"}, [](Options& o) { o.keepalive_time = absl::InfiniteDuration(); }},
      {{"--keepalive_timeout=5s"}, [](Options& o) { o.keepalive_timeout = absl::Seconds(5); }},
      {{"--min_ping_interval=10ms"}, [](Options& o) { o.min_ping_interval = absl::Milliseconds(10); }},
      {{"--max_connection_age=5m"}, [](Options& o) { o.max_connection_age = absl::Minutes(5); }},
      {{"--max_connection_age_grace=1h"}, [](Options& o) { o.max_connection_age_grace = absl::Hours(1); }},
      {{"--max_queue_time=1500ms"}, [](Options& o) { o.max_queue_time = absl::Milliseconds(1500); }},
      {{"--max_queue_time=inf"}, [](Options& o) { o.max_queue_time = absl::InfiniteDuration(); }},
      {{"--stall_seconds=0"}, [](Options& o) { o.stall = absl::ZeroDuration(); }},
      {{"--stall_seconds=inf"}, [](Options& o) { o.stall = absl::InfiniteDuration(); }},
      {{"--stall_seconds=2.5"}, [](Options& o) { o.stall = absl::Milliseconds(2500); }},
      {{"--min_rate=1MiB"}, [](Options& o) { o.min_rate = 1 << 20; }},
      {{"--max_sessions=0"}, [](Options& o) { o.max_sessions = 0; }},
      {{"--max_peer_sessions=7"}, [](Options& o) { o.max_peer_sessions = 7; }},
      {{"--session_lease=11s"}, [](Options& o) { o.session_lease = absl::Seconds(11); }},
      {{"--session_idle=12s"}, [](Options& o) { o.session_idle = absl::Seconds(12); }},
      {{"--session_life=13s"}, [](Options& o) { o.session_life = absl::Seconds(13); }},
      {{"--session_grace=14s"}, [](Options& o) { o.session_grace = absl::Seconds(14); }},
      {{"--log_level=trace"}, [](Options& o) { o.log_level = "trace"; }},
      {{"--log_level=off"}, [](Options& o) { o.log_level = "off"; }},
      {{"--max_request_bytes=3KiB"}, [](Options& o) { o.limits.max_request_bytes = 3072; }},
      {{"--threads=1", "--threads=2"}, [](Options& o) { o.threads = 2; }},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.arguments.back());
    const absl::StatusOr<Options> options = Parse(c.arguments);
    ASSERT_TRUE(options.ok()) << options.status();
    Options expected;
    c.change(expected);
    ExpectSame(*options, expected);
  }
  // No flag is left out.
  std::set<std::string> tried;
  for (const LimitRow& row : LimitRows()) {
    if (row.has_flag) tried.insert(row.name);  // in the test below
  }
  for (const auto& c : kCases) {
    for (const std::string& argument : c.arguments) {
      std::string name =
          argument.substr(argument.find_first_not_of('-'), argument.find('=') - argument.find_first_not_of('-'));
      if (argument.rfind("--no", 0) == 0) name = argument.substr(4);
      tried.insert(name);
    }
  }
  for (const std::string& flag : OwnFlags()) EXPECT_EQ(tried.count(flag), 1U) << flag;
}

TEST_F(FlagsTest, EachLimitsFlagSetsItsFieldAndNoOther) {
  for (const LimitRow& row : LimitRows()) {
    if (!row.has_flag) continue;
    SCOPED_TRACE(row.name);
    Options expected;
    const std::int64_t value = row.lowest + 1;
    ASSERT_NE(expected.limits.*row.value, value);
    expected.limits.*row.value = value;
    const absl::StatusOr<Options> options = Parse({absl::StrCat("--", row.name, "=", value)});
    ASSERT_TRUE(options.ok()) << options.status();
    ExpectSame(*options, expected);
  }
}

TEST_F(FlagsTest, LimitsOfBytesTakeUnitsAndCountsDoNot) {
  int bytes = 0;
  int counts = 0;
  for (const LimitRow& row : LimitRows()) {
    if (!row.has_flag) continue;
    const std::string argument = absl::StrCat("--", row.name, "=1KiB");
    if (absl::EndsWith(row.name, "_bytes")) {
      ++bytes;
      const absl::StatusOr<Options> options = Parse({argument});
      ASSERT_TRUE(options.ok()) << argument << ": " << options.status();
      EXPECT_EQ(options->limits.*row.value, 1024);
    } else {
      ++counts;
      EXPECT_EXIT(ParseAloud({argument}), ExitedWithCode(2), HasSubstr(row.name));
    }
  }
  EXPECT_GT(bytes, 0);
  EXPECT_GT(counts, 0);
}

TEST_F(FlagsTest, ValuesOutOfRangeAreRefusedByName) {
  const struct {
    std::vector<std::string> arguments;
    const char* field;
  } kCases[] = {
      {{"--listen="}, "--listen: "},
      {{"--listen=nowhere"}, "--listen: "},
      {{"--max_connection_streams=0"}, "--max_connection_streams: "},
      {{"--max_connections=-1"}, "--max_connections: "},
      {{"--max_peer_connections=-1"}, "--max_peer_connections: "},
      {{"--max_reads=-1"}, "--max_reads: "},
      {{"--handshake_time=0s"}, "--handshake_time: "},
      {{"--max_connection_idle=-1s"}, "--max_connection_idle: "},
      {{"--unix_socket_mode="}, "--unix_socket_mode: "},
      {{"--unix_socket_mode=0888"}, "--unix_socket_mode: "},
      {{"--unix_socket_mode=01777"}, "--unix_socket_mode: "},
      {{"--unix_socket_mode=rw"}, "--unix_socket_mode: "},
      {{"--threads=-1"}, "--threads: "},
      {{"--threads=4097"}, "--threads: "},
      {{"--drain_seconds=-0.001"}, "--drain_seconds: "},
      {{"--max_connection_age=0"}, "--max_connection_age: "},
      {{"--min_ping_interval=-1s"}, "--min_ping_interval: "},
      {{"--drain_seconds=inf"}, "--drain_seconds: "},
      {{"--max_queue_time=0s"}, "--max_queue_time: "},
      {{"--stall_seconds=-1"}, "--stall_seconds: "},
      {{"--min_rate=0"}, "--min_rate: "},
      {{"--drain_seconds=-inf"}, "--drain_seconds: "},
      {{"--drain_seconds=nan"}, "--drain_seconds: "},
      {{"--max_sessions=-1"}, "--max_sessions: "},
      {{"--max_peer_sessions=0"}, "--max_peer_sessions: "},
      {{"--session_lease=0s"}, "--session_lease: "},
      {{"--session_idle=0s"}, "--session_idle: "},
      {{"--session_life=0s"}, "--session_life: "},
      {{"--session_grace=25h"}, "--session_grace: "},
      {{"--trusted_proxies=nowhere"}, "--trusted_proxies: "},
      {{"--log_level="}, "--log_level: "},
      {{"--log_level=INFO"}, "--log_level: "},
      {{"--max_dim=0"}, "--max_dim: "},
      {{"--max_models=-9223372036854775808"}, "--max_models: "},
  };
  for (const auto& c : kCases) {
    const absl::Status status = Parse(c.arguments).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.arguments.back();
    EXPECT_THAT(std::string(status.message()), testing::StartsWith(c.field)) << c.arguments.back();
  }
}

TEST_F(FlagsTest, ArgumentsThatAreNoFlagsAreRefused) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"model.json"}, {"--threads=1", "model.json"}, {"--", "model.json"}}) {
    const absl::Status status = Parse(arguments).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("\"model.json\""));
  }
}

TEST_F(FlagsTest, WhatIsNoFlagOrOfTheWrongTypeEndsTheProcess) {
  const struct {
    const char* argument;
    const char* message;
  } kCases[] = {
      {"--no_such_flag", "no_such_flag"},
      {"--no_such_flag=1", "no_such_flag"},
      {"--max_page_size=10", "max_page_size"},
      {"--max_header_bytes=10", "max_header_bytes"},
      {"--threads=", "threads"},
      {"--threads=many", "threads"},
      {"--threads=1.5", "threads"},
      {"--threads=4294967297", "threads"},
      {"--drain_seconds=soon", "drain_seconds"},
      {"--shared_memory=perhaps", "shared_memory"},
      {"--max_dim=9223372036854775808", "max_dim"},
      {"--max_request_bytes=1GB", "max_request_bytes"},
      {"--max_request_bytes=-1", "max_request_bytes"},
      {"--flagfile=/no/such/file", "/no/such/file"},
  };
  for (const auto& c : kCases) {
    EXPECT_EXIT(ParseAloud({c.argument}), ExitedWithCode(2),
                AllOf(HasSubstr(c.message), HasSubstr("Try 'attnd --help'."), Not(HasSubstr("went on"))))
        << c.argument;
  }
}

TEST_F(FlagsTest, HelpHasALineForEachFlagAndEndsTheProcess) {
  std::vector<testing::Matcher<const std::string&>> lines;
  for (const std::string& name : OwnFlags()) lines.emplace_back(HasSubstr(absl::StrCat("\n  --", name, " ")));
  EXPECT_EXIT(ParseAloud({"--help"}), ExitedWithCode(0), testing::AllOfArray(lines));
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"-h"}, {"-help"}, {"--threads=many", "--help"}, {"--help", "--version"}}) {
    EXPECT_EXIT(ParseAloud(arguments), ExitedWithCode(0), AllOf(HasSubstr("--max_dim"), Not(HasSubstr("undefok"))));
  }
}

TEST_F(FlagsTest, HelpShowsDefaults) {
  std::vector<testing::Matcher<const std::string&>> lines;
  for (const LimitRow& row : LimitRows()) {
    if (!row.has_flag) continue;
    const std::int64_t value = UnfittedLimits().*row.value;
    const bool is_bytes = absl::EndsWith(row.name, "_bytes");
    const std::string shown = is_bytes ? AbslUnparseFlag(ByteSize{value}) : std::to_string(value);
    lines.emplace_back(testing::ContainsRegex(absl::StrCat("--", row.name, " [^\n]*\\(", shown, "\\)\n")));
  }
  EXPECT_EXIT(ParseAloud({"--help"}), ExitedWithCode(0), testing::AllOfArray(lines));
}

TEST_F(FlagsTest, VersionEndsTheProcess) {
  for (const char* flag : {"--version", "-version"}) {
    EXPECT_EXIT(ParseAloud({flag}), ExitedWithCode(0), testing::Eq(absl::StrCat("attnd ", kVersion, "\n")));
  }
}

TEST_F(FlagsTest, FlagsAreReadFromAFileToo) {
  const std::string path = testing::TempDir() + "/flags_test." + std::to_string(getpid());
  std::ofstream(path) << "# a comment\n--threads=7\n\n--max_dim=5\n";
  const absl::StatusOr<Options> options = Parse({"--flagfile=" + path, "--max_dim=6"});
  unlink(path.c_str());
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->threads, 7);
  EXPECT_EQ(options->limits.max_dim, 6);
}

}  // namespace
}  // namespace attnd::server
