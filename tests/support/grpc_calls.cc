#include "grpc_calls.h"

#include <future>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "google/protobuf/unknown_field_set.h"
#include "grpcpp/alarm.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/client_interceptor.h"
#include "gtest/gtest.h"
#include "wait.h"

namespace attnd::test {

namespace {

// A call, and what cancels it when its time is over.
struct TimedCall {
  TimedCall(grpc::ClientContext* call, std::string called, absl::Duration most)
      : context(call), method(std::move(called)), time(most) {}

  void Expire() {
    absl::MutexLock lock(&mutex);
    if (context == nullptr) return;
    ADD_FAILURE() << method << ": still runs after " << time;
    context->TryCancel();
  }

  absl::Mutex mutex;
  grpc::ClientContext* context;  // null: it has ended
  const std::string method;
  const absl::Duration time;
};

class Timer : public grpc::experimental::Interceptor {
 public:
  Timer(grpc::experimental::ClientRpcInfo* info, absl::Duration time)
      : call_(std::make_shared<TimedCall>(info->client_context(), info->method(), time)) {
    alarm_.Set(absl::ToChronoTime(absl::Now() + time), [call = call_](bool expired) {
      if (expired) call->Expire();
    });
  }
  ~Timer() override { End(); }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::POST_RECV_STATUS)) End();
    methods->Proceed();
  }

 private:
  void End() {
    absl::MutexLock lock(&call_->mutex);
    call_->context = nullptr;
  }

  const std::shared_ptr<TimedCall> call_;
  grpc::Alarm alarm_;  // cancelled by its destructor
};

class TimerFactory : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit TimerFactory(absl::Duration time) : time_(time) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo* info) override {
    return new Timer(info, time_);
  }

 private:
  const absl::Duration time_;
};

std::shared_ptr<grpc::Channel> TimedChannel(const std::string& address, grpc::ChannelArguments arguments,
                                            absl::Duration time) {
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> timers;
  timers.push_back(std::make_unique<TimerFactory>(time));
  return grpc::experimental::CreateCustomChannelWithInterceptors(address, grpc::InsecureChannelCredentials(), arguments,
                                                                 std::move(timers));
}

}  // namespace

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address, grpc::ChannelArguments arguments) {
  return TimedChannel(address, std::move(arguments), Patience());
}

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address, absl::Duration time) {
  return TimedChannel(address, {}, time);
}

grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     grpc::ClientContext& context, const grpc::ByteBuffer& request, grpc::ByteBuffer* reply) {
  std::promise<grpc::Status> ended;
  grpc::GenericStub(channel).UnaryCall(&context, method, grpc::StubOptions(), &request, reply,
                                       [&ended](const grpc::Status& status) { ended.set_value(status); });
  return ended.get_future().get();
}

absl::StatusOr<std::int64_t> ServingStatusOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& service,
                                             grpc::ClientContext& context) {
  // HealthCheckRequest {string service = 1}, HealthCheckResponse {ServingStatus status = 1}.
  google::protobuf::UnknownFieldSet fields;
  fields.AddLengthDelimited(1, service);
  std::string bytes;
  fields.SerializeToString(&bytes);
  const grpc::Slice slice(bytes);
  grpc::ByteBuffer reply;
  const grpc::Status status =
      RawCall(channel, "/grpc.health.v1.Health/Check", context, grpc::ByteBuffer(&slice, 1), &reply);
  if (!status.ok()) return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  grpc::Slice flat;
  if (!reply.DumpToSingleSlice(&flat).ok() || !fields.ParseFromArray(flat.begin(), static_cast<int>(flat.size())) ||
      fields.field_count() != 1) {
    return absl::DataLossError("not a HealthCheckResponse");
  }
  return static_cast<std::int64_t>(fields.field(0).varint());
}

}  // namespace attnd::test
