// Cases of limit_rows_test.cc that are about connections, and what all its cases share.
#pragma once

#include <cstdint>
#include <string>

#include "e2e_support.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace attnd::e2e {

inline server::Options With(std::int64_t server::Limits::*limit, std::int64_t value) {
  server::Options options = TestOptions();
  options.limits.*limit = value;
  return options;
}

inline v1::GetServerInfoResponse InfoOf(TestServer& server) {
  grpc::ClientContext context;
  v1::GetServerInfoResponse info;
  const grpc::Status status = server.info().GetServerInfo(&context, {}, &info);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return info;
}

inline void ExpectExhausted(const grpc::Status& status, const std::string& text) {
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_THAT(status.error_message(), testing::HasSubstr(text));
}

void Connections();        // max_connections
void PeerConnections();    // max_peer_connections
void ConnectionStreams();  // max_connection_streams
void Reads();              // max_reads

}  // namespace attnd::e2e
