// Converts between generated messages and the library's public structs.
#pragma once

#include "attnd/models.h"
#include "attnd/session.h"
#include "client/messages/model.pb.h"
#include "client/messages/server.pb.h"
#include "client/messages/session.pb.h"

namespace attnd::client {

Model FromProto(const v1::Model& message);
BiasReply FromProto(const v1::GetBiasResponse& message);
ServerInfo FromProto(const v1::GetServerInfoResponse& message);
OpenSessionInfo FromProto(const v1::SessionInfo& message);
v1::Table ToProto(const Table& table);
v1::GetBiasRequest ToProto(const BiasRequest& request);

}  // namespace attnd::client
