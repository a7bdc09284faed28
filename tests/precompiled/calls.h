// Likewise, for tests of what sends and takes messages.
#pragma once

#include "grpcpp/grpcpp.h"
#include "plain.h"

#include "attnd/v1/attention.grpc.pb.h"
#include "attnd/v1/local.pb.h"
#include "attnd/v1/model.grpc.pb.h"
#include "attnd/v1/server.grpc.pb.h"
#include "attnd/v1/session.grpc.pb.h"
