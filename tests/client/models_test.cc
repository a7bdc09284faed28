// The other calls: every field of the messages and of the library's structs meets its counterpart.
#include <gmock/gmock.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>

#include "attnd/client.h"
#include "attnd/v1/model.grpc.pb.h"
#include "attnd/v1/server.grpc.pb.h"
#include "attnd/v1/session.grpc.pb.h"
#include "fake_server.h"

namespace attnd::client {
namespace {

using testing::ElementsAre;

v1::Model ExampleModel(const std::string& name) {
  v1::Model m;
  m.set_name(name);
  m.set_version(2);
  m.set_heads(2);
  m.set_source("dir/t5");
  m.set_format("huggingface");
  m.set_architecture("t5");
  m.set_content_hash("cafe");
  m.mutable_loaded_at()->set_seconds(1000);
  m.mutable_loaded_at()->set_nanos(500000000);
  v1::Table* t5 = m.add_tables();
  t5->set_name("decoder");
  t5->set_heads(2);
  t5->mutable_t5()->set_num_buckets(2);
  t5->mutable_t5()->set_max_distance(5);
  for (const float value : {1.F, 2.F, 3.F, 4.F}) t5->mutable_t5()->add_values(value);
  v1::Table* alibi = m.add_tables();
  alibi->set_name("encoder");
  alibi->set_bidirectional(true);
  alibi->mutable_alibi()->add_slopes(0.5);
  v1::Table* each = m.add_tables();
  each->mutable_per_offset()->set_min_offset(-3);
  each->mutable_per_offset()->add_values(7);
  return m;
}

// Answers with examples and keeps the requests.
class FakeModels : public v1::ModelService::Service {
 public:
  grpc::Status ListModels(grpc::ServerContext*, const v1::ListModelsRequest* request,
                          v1::ListModelsResponse* response) override {
    tokens.push_back(request->page_token());
    *response->add_models() = ExampleModel("page" + request->page_token());
    if (request->page_token().empty()) {
      v1::FailedModel& failed = *response->add_failed_models();
      failed.set_name("org/name");
      failed.set_path("models--org--name");
      failed.set_reason("why");
    }
    if (tokens.size() < 3) response->set_next_page_token(std::to_string(tokens.size()));
    return grpc::Status::OK;
  }
  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest* request,
                        v1::GetModelResponse* response) override {
    get = *request;
    *response->mutable_model() = ExampleModel(request->name());
    return grpc::Status::OK;
  }
  grpc::Status LoadModel(grpc::ServerContext*, const v1::LoadModelRequest* request,
                         v1::LoadModelResponse* response) override {
    load = *request;
    *response->mutable_model() = ExampleModel(request->name());
    return grpc::Status::OK;
  }
  grpc::Status ReloadModel(grpc::ServerContext*, const v1::ReloadModelRequest* request,
                           v1::ReloadModelResponse* response) override {
    *response->mutable_model() = ExampleModel(request->name());
    return grpc::Status::OK;
  }
  grpc::Status UnloadModel(grpc::ServerContext*, const v1::UnloadModelRequest* request,
                           v1::UnloadModelResponse*) override {
    return {grpc::StatusCode::NOT_FOUND, "no model " + request->name()};
  }
  grpc::Status UploadTable(grpc::ServerContext*, const v1::UploadTableRequest* request,
                           v1::UploadTableResponse* response) override {
    upload = *request;
    *response->mutable_model() = ExampleModel(request->model());
    return grpc::Status::OK;
  }
  grpc::Status GetBias(grpc::ServerContext*, const v1::GetBiasRequest* request,
                       v1::GetBiasResponse* response) override {
    bias = *request;
    response->set_version(3);
    response->set_content_hash("cafe");
    response->set_table("decoder");
    response->set_mask(v1::MASK_CAUSAL);
    for (const int offset : {0, -1}) response->add_offsets(offset);
    for (const int bucket : {0, -1}) response->add_buckets(bucket);
    response->add_heads(1);
    for (const float value : {2.5F, 0.F}) response->add_values(value);
    v1::BucketRange* range = response->add_bucket_ranges();
    range->set_bucket(7);
    range->set_max_offset(4);
    range = response->add_bucket_ranges();
    range->set_bucket(8);
    range->set_min_offset(-2);
    return grpc::Status::OK;
  }

  std::vector<std::string> tokens;
  v1::GetModelRequest get;
  v1::LoadModelRequest load;
  v1::UploadTableRequest upload;
  v1::GetBiasRequest bias;
};

// Sets every number of a message, and of the messages in it, to one of its own, and every text to its field's name.
void FillAll(google::protobuf::Message& message, std::int64_t& next) {
  const google::protobuf::Descriptor* const type = message.GetDescriptor();
  const google::protobuf::Reflection* const reflection = message.GetReflection();
  using Field = google::protobuf::FieldDescriptor;
  for (int i = 0; i < type->field_count(); ++i) {
    const Field* const field = type->field(i);
    if (field->is_repeated()) continue;
    switch (field->cpp_type()) {
      case Field::CPPTYPE_INT32:
        reflection->SetInt32(&message, field, static_cast<std::int32_t>(next++));
        break;
      case Field::CPPTYPE_INT64:
        reflection->SetInt64(&message, field, next++);
        break;
      case Field::CPPTYPE_UINT32:
        reflection->SetUInt32(&message, field, static_cast<std::uint32_t>(next++));
        break;
      case Field::CPPTYPE_UINT64:
        reflection->SetUInt64(&message, field, static_cast<std::uint64_t>(next++));
        break;
      case Field::CPPTYPE_BOOL:
        reflection->SetBool(&message, field, true);
        break;
      case Field::CPPTYPE_STRING:
        reflection->SetString(&message, field, std::string(field->name()));
        break;
      case Field::CPPTYPE_MESSAGE:
        FillAll(*reflection->MutableMessage(&message, field), next);
        break;
      default:
        ADD_FAILURE() << field->full_name() << ": of a type that this test does not fill";
    }
  }
}

// The server's answer when it says everything.
v1::GetServerInfoResponse WholeInfo() {
  v1::GetServerInfoResponse info;
  std::int64_t next = 1000;
  FillAll(info, next);
  info.add_available_kernels("one");
  info.add_available_kernels("two");
  for (const v1::SettingState state : {v1::SETTING_STATE_IN_FORCE, v1::SETTING_STATE_NOT_IN_FORCE}) {
    v1::Setting& setting = *info.add_settings();
    setting.set_name("name " + std::to_string(state));
    setting.set_state(state);
    setting.set_detail("detail " + std::to_string(state));
  }
  return info;
}

class WholeInfoService : public v1::ServerService::Service {
  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*,
                             v1::GetServerInfoResponse* response) override {
    *response = WholeInfo();
    return grpc::Status::OK;
  }
};

class FakeInfo : public v1::ServerService::Service {
  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*,
                             v1::GetServerInfoResponse* response) override {
    response->set_version("0.1.0");
    response->set_kernel("x86-64-v3");
    response->add_available_kernels("x86-64-v3");
    response->add_available_kernels("x86-64-v2");
    response->set_threads(2);
    response->mutable_started_at()->set_seconds(1000);
    v1::Limits& limits = *response->mutable_limits();
    std::int64_t next = 1;
#define ATTND_LIMIT(name, ...) limits.set_##name(next++);
#define ATTND_FIXED_LIMIT(name, value) limits.set_##name(next++);
#include "attnd/limits.inc"
    response->mutable_memory()->set_max_peer_bytes(500);
    v1::SessionUse& sessions = *response->mutable_sessions();
    sessions.set_open(1);
    sessions.set_evicted(2);
    sessions.set_max_sessions(3);
    sessions.set_max_peer_sessions(4);
    return grpc::Status::OK;
  }
};

class ModelsTest : public testing::Test {
 protected:
  ModelsTest() : server_({&models_, &info_}), client_(*Client::Create(server_.target())) {}
  FakeModels models_;
  FakeInfo info_;
  FakeServer server_;
  Client client_;
};

TEST_F(ModelsTest, ListsEveryPage) {
  const auto models = client_.ListModels();
  ASSERT_TRUE(models.ok()) << models.status();
  EXPECT_THAT(models_.tokens, ElementsAre("", "1", "2"));
  ASSERT_EQ(models->size(), 3U);
  EXPECT_EQ((*models)[1].name, "page1");
}

TEST_F(ModelsTest, ListsWhatTheServerCouldNotLoad) {
  const auto failed = client_.ListFailedModels();
  ASSERT_TRUE(failed.ok()) << failed.status();
  EXPECT_THAT(models_.tokens, ElementsAre(""));
  EXPECT_THAT(*failed, ElementsAre(testing::FieldsAre("org/name", "models--org--name", "why")));
}

TEST_F(ModelsTest, ListsBothInOneWalk) {
  const auto list = client_.ListAllModels();
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_THAT(models_.tokens, ElementsAre("", "1", "2"));
  EXPECT_EQ(list->models.size(), 3U);
  EXPECT_THAT(list->failed, ElementsAre(testing::FieldsAre("org/name", "models--org--name", "why")));
}

TEST_F(ModelsTest, DescribesAModel) {
  const auto model = client_.GetModel("t5", 2, true);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(models_.get.name(), "t5");
  EXPECT_EQ(models_.get.version(), 2U);
  EXPECT_TRUE(models_.get.include_values());
  EXPECT_EQ(model->name, "t5");
  EXPECT_EQ(model->version, 2U);
  EXPECT_EQ(model->heads, 2);
  EXPECT_EQ(model->source, "dir/t5");
  EXPECT_EQ(model->format, "huggingface");
  EXPECT_EQ(model->architecture, "t5");
  EXPECT_EQ(model->content_hash, "cafe");
  EXPECT_EQ(model->loaded_at, absl::FromUnixMillis(1000500));
  ASSERT_EQ(model->tables.size(), 3U);
  const auto& t5 = std::get<T5Buckets>(model->tables[0].rule);
  EXPECT_EQ(t5.num_buckets, 2);
  EXPECT_EQ(t5.max_distance, 5);
  EXPECT_THAT(t5.values, ElementsAre(1, 2, 3, 4));
  EXPECT_TRUE(model->tables[1].bidirectional);
  EXPECT_THAT(std::get<AlibiSlopes>(model->tables[1].rule).slopes, ElementsAre(0.5));
  EXPECT_EQ(std::get<PerOffset>(model->tables[2].rule).min_offset, -3);
  EXPECT_THAT(std::get<PerOffset>(model->tables[2].rule).values, ElementsAre(7));
}

TEST_F(ModelsTest, LoadsReloadsAndUnloads) {
  EXPECT_EQ(client_.LoadModel("dir/t5", "mine")->name, "mine");
  EXPECT_EQ(models_.load.path(), "dir/t5");
  EXPECT_EQ(client_.ReloadModel("mine")->name, "mine");
  EXPECT_EQ(client_.UnloadModel("mine"), absl::NotFoundError("no model mine"));
}

TEST_F(ModelsTest, UploadsWhatItWasGiven) {
  const v1::Model example = ExampleModel("up");
  const auto model = client_.GetModel("up");
  for (int i = 0; i < example.tables_size(); ++i) {
    ASSERT_TRUE(client_.UploadTable("up", model->tables[static_cast<std::size_t>(i)], true).ok());
    EXPECT_EQ(models_.upload.model(), "up");
    EXPECT_TRUE(models_.upload.replace());
    EXPECT_EQ(models_.upload.table().SerializeAsString(), example.tables(i).SerializeAsString());
  }
}

TEST_F(ModelsTest, AsksForABias) {
  const auto bias = client_.GetBias({"m", 1, "decoder", 2, 3, 4, 5, Mask::kCausal, {1}});
  ASSERT_TRUE(bias.ok()) << bias.status();
  v1::GetBiasRequest expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      "model: 'm' version: 1 table: 'decoder' query_start: 2 query_count: 3 key_start: 4 key_count: 5 "
      "mask: MASK_CAUSAL heads: 1",
      &expected));
  EXPECT_EQ(models_.bias.SerializeAsString(), expected.SerializeAsString());
  EXPECT_EQ(bias->version, 3U);
  EXPECT_EQ(bias->content_hash, "cafe");
  EXPECT_EQ(bias->table, "decoder");
  EXPECT_EQ(bias->mask, Mask::kCausal);
  EXPECT_THAT(bias->offsets, ElementsAre(0, -1));
  EXPECT_THAT(bias->buckets, ElementsAre(0, -1));
  EXPECT_THAT(bias->heads, ElementsAre(1));
  EXPECT_THAT(bias->values, ElementsAre(2.5, 0));
  ASSERT_EQ(bias->bucket_ranges.size(), 2U);
  EXPECT_EQ(bias->bucket_ranges[0].bucket, 7);
  EXPECT_EQ(bias->bucket_ranges[0].min_offset, std::nullopt);
  EXPECT_EQ(bias->bucket_ranges[0].max_offset, 4);
  EXPECT_EQ(bias->bucket_ranges[1].bucket, 8);
  EXPECT_EQ(bias->bucket_ranges[1].min_offset, -2);
  EXPECT_EQ(bias->bucket_ranges[1].max_offset, std::nullopt);
}

void ExpectSame(const MemoryUse& use, const v1::MemoryUse& m) {
  EXPECT_THAT(use, testing::FieldsAre(m.total_bytes(), m.used_bytes(), m.peak_bytes(), m.free_bytes(), m.peers(),
                                      m.largest_peer_bytes(), m.refused_by_total(), m.refused_by_share(),
                                      m.refused_as_never_fitting(), m.max_peer_bytes()));
}

TEST(ServerInfoTest, EachFieldIsItsOwn) {
  WholeInfoService service;
  FakeServer server({&service});
  const auto info = Client::Create(server.target())->GetServerInfo();
  ASSERT_TRUE(info.ok()) << info.status();
  const v1::GetServerInfoResponse m = WholeInfo();
  EXPECT_EQ(info->version, "version");
  EXPECT_EQ(info->kernel, "kernel");
  EXPECT_THAT(info->available_kernels, ElementsAre("one", "two"));
  EXPECT_EQ(info->threads, m.threads());
  EXPECT_EQ(info->started_at,
            absl::FromUnixSeconds(m.started_at().seconds()) + absl::Nanoseconds(m.started_at().nanos()));
#define ATTND_LIMIT(name, ...) EXPECT_EQ(info->limits.name, m.limits().name());
#define ATTND_FIXED_LIMIT(name, value) EXPECT_EQ(info->limits.name, m.limits().name());
#include "attnd/limits.inc"
  EXPECT_TRUE(info->local_calls);
  ExpectSame(*info->memory, m.memory());
  ExpectSame(*info->shared_memory, m.shared_memory());
  EXPECT_THAT(info->stalled_calls, testing::FieldsAre(m.stalled_calls().writes(), m.stalled_calls().reads()));
  EXPECT_THAT(info->queue, testing::FieldsAre(m.queue().waiting(), m.queue().refused(), m.queue().expired()));
  EXPECT_EQ(info->model_bytes, m.model_bytes());
  EXPECT_THAT(info->sessions,
              testing::Optional(testing::FieldsAre(m.sessions().open(), m.sessions().evicted(),
                                                   m.sessions().max_sessions(), m.sessions().max_peer_sessions())));
  ASSERT_EQ(info->settings.size(), 2U);
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(info->settings[static_cast<std::size_t>(i)],
                testing::FieldsAre(m.settings(i).name(), static_cast<SettingState>(m.settings(i).state()),
                                   m.settings(i).detail()));
  }
}

// The open sessions, and what is asked to evict one.
class FakeSessionList : public v1::SessionService::Service {
 public:
  grpc::Status ListSessions(grpc::ServerContext*, const v1::ListSessionsRequest*,
                            v1::ListSessionsResponse* response) override {
    std::int64_t next = 10;
    FillAll(*response->add_sessions(), next);
    FillAll(*response->add_sessions(), next);
    return grpc::Status::OK;
  }
  grpc::Status EvictSession(grpc::ServerContext*, const v1::EvictSessionRequest* request,
                            v1::EvictSessionResponse*) override {
    evicted = request->id();
    return grpc::Status::OK;
  }
  std::uint64_t evicted = 0;
};

TEST(SessionListTest, EachFieldIsItsOwn) {
  FakeSessionList service;
  FakeServer server({&service});
  Client client = *Client::Create(server.target());
  const auto sessions = client.ListSessions();
  ASSERT_TRUE(sessions.ok()) << sessions.status();
  ASSERT_EQ(sessions->size(), 2U);
  v1::ListSessionsResponse expected;
  service.ListSessions(nullptr, nullptr, &expected);
  for (std::size_t i = 0; i < 2; ++i) {
    const v1::SessionInfo& m = expected.sessions(static_cast<int>(i));
    const auto duration = [](const google::protobuf::Duration& d) {
      return absl::Seconds(d.seconds()) + absl::Nanoseconds(d.nanos());
    };
    EXPECT_THAT((*sessions)[i], testing::FieldsAre(m.id(), m.peer(), m.model(), m.version(), m.rows(), m.sources(),
                                                   m.layers(), m.reserved_bytes(), m.used_bytes(), m.steps(),
                                                   duration(m.age()), duration(m.idle())));
  }
  EXPECT_TRUE(client.EvictSession(77).ok());
  EXPECT_EQ(service.evicted, 77U);
}

TEST_F(ModelsTest, TellsTheServersFacts) {
  const auto info = client_.GetServerInfo();
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->version, "0.1.0");
  EXPECT_EQ(info->kernel, "x86-64-v3");
  EXPECT_THAT(info->available_kernels, ElementsAre("x86-64-v3", "x86-64-v2"));
  EXPECT_EQ(info->threads, 2);
  EXPECT_EQ(info->started_at, absl::FromUnixSeconds(1000));
  std::int64_t next = 1;
#define ATTND_LIMIT(name, ...) EXPECT_EQ(info->limits.name, next++);
#define ATTND_FIXED_LIMIT(name, value) EXPECT_EQ(info->limits.name, next++);
#include "attnd/limits.inc"
  EXPECT_EQ(info->limits.max_head_dim, 4) << "the numbers of attnd.v1.Limits";
  EXPECT_EQ(info->memory->max_peer_bytes, 500);
  EXPECT_THAT(info->sessions, testing::Optional(testing::FieldsAre(1, 2, 3, 4)));
}

}  // namespace
}  // namespace attnd::client
