#include "server/attention/engine.h"

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "memory/no_memory.h"
#include "schedule/attention_work.h"
#include "schedule/work.h"
#include "server/attention/bias.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

// Of what a request holds; its other fields are few bytes.
std::int64_t SizeOf(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors) {
  return static_cast<std::int64_t>(tensors.q.size + tensors.k.size + tensors.v.size + request.key_bits().size());
}

bool OutputIsShared(const ValidAttention& valid) {
  return valid.shared != nullptr && valid.shared->output.region != nullptr;
}

bool LogSumExpIsShared(const ValidAttention& valid) {
  return valid.shared != nullptr && valid.shared->log_sum_exp.region != nullptr;
}

// RESOURCE_EXHAUSTED if the results that are sent with the answer take more than `max_sent_bytes`.
absl::Status CheckSent(std::int64_t output_bytes, std::int64_t log_sum_exp_bytes, std::int64_t max_sent_bytes) {
  if (output_bytes + log_sum_exp_bytes <= max_sent_bytes) return absl::OkStatus();
  const bool output = output_bytes > max_sent_bytes;
  return FieldError(
      absl::StatusCode::kResourceExhausted, output ? "output" : "log_sum_exp",
      absl::StrCat("at most ", max_sent_bytes, " bytes of output and log-sum-exp in a local call's answer (",
                   "output_shared and log_sum_exp_shared, or a call by gRPC, have room for more)"),
      absl::StrCat(output_bytes, " and ", log_sum_exp_bytes, " bytes"));
}

// Whether validating a request and cutting it into items takes more than about 0.05 to 0.09 ms: 6 to 11 ns for each
// head of a sequence, and for each block of its queries and keys. The fields are not validated yet.
bool TakesLongToPrepare(const v1::ComputeAttentionRequest& request) {
  constexpr double kLong = 8192, kBlock = 256;
  const double heads = static_cast<double>(request.batch()) * static_cast<double>(request.heads());
  const double rows = static_cast<double>(request.query_length()) + static_cast<double>(request.key_length());
  return heads * (1 + rows / kBlock) > kLong;
}

// The preparation of a request, as a work of one item. Its cost is such that it is not done on the submitting thread.
class Preparation final : public schedule::Work {
 public:
  explicit Preparation(std::function<void()> prepare) : prepare_(std::move(prepare)) {}
  std::int64_t item_count() const override { return 1; }
  absl::Span<const schedule::Item> initial_items() const override { return absl::MakeConstSpan(&item_, 1); }
  void Run(std::int64_t, schedule::Arena&, absl::FunctionRef<void(schedule::Item)>) override {
    std::exchange(prepare_, nullptr)();
  }

 private:
  std::function<void()> prepare_;
  const schedule::Item item_{0, 1 << 20};
};

}  // namespace

// What a request holds from its admission until its result is handed over.
struct AttentionEngine::Job {
  std::shared_ptr<const model::Model> model;  // null with BIAS_NONE
  ValidAttention valid;
  AttentionResult result;
  Done done;  // once nothing can fail any more before the scheduler has the work

  // The result of a computation that has succeeded, with what is said of it.
  absl::Status Complete(absl::Duration prepared, const schedule::Outcome& outcome) {
    if (!outcome.status.ok()) return outcome.status;
    return memory::CatchNoMemoryIn([&] {
      v1::ComputeAttentionResponse& header = result.header;
      if (model != nullptr) {
        header.set_version(model->version());
        header.set_content_hash(model->content_hash());
      }
      header.set_dtype(valid.output_dtype);
      *header.mutable_queue_time() = ToProto(prepared + outcome.queued);
      *header.mutable_compute_time() = ToProto(outcome.computed);
    });
  }
};

AttentionEngine::AttentionEngine(const Limits& limits, model::Registry& registry, const kernel::Kernel& kernel,
                                 int threads, const SharedMemory* memory)
    : validator_(limits, memory),
      admission_(limits.max_inflight_bytes),
      registry_(registry),
      kernel_(kernel),
      scheduler_(threads) {}

absl::Status AttentionEngine::Prepare(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                                      std::int64_t max_sent_bytes, Job& job) {
  ATTND_RETURN_IF_ERROR(CheckBias(request));
  if (request.bias() != v1::BIAS_NONE) {
    ATTND_ASSIGN_OR_RETURN(job.model, registry_.Find(request.model(), request.version()));
  }
  ATTND_ASSIGN_OR_RETURN(job.valid, validator_.Validate(request, tensors, job.model.get()));
  const ValidAttention& valid = job.valid;
  const std::int64_t output_bytes = OutputIsShared(valid) ? 0 : valid.output_bytes;
  const std::int64_t log_sum_exp_bytes = LogSumExpIsShared(valid) ? 0 : valid.log_sum_exp_bytes;
  ATTND_RETURN_IF_ERROR(CheckSent(output_bytes, log_sum_exp_bytes, max_sent_bytes));
  ATTND_ASSIGN_OR_RETURN(job.result.lease, admission_.Admit(SizeOf(request, tensors) + output_bytes +
                                                            log_sum_exp_bytes + valid.packed_bytes));
  ATTND_ASSIGN_OR_RETURN(job.result.output, Buffer::Create(static_cast<std::size_t>(output_bytes)));
  ATTND_ASSIGN_OR_RETURN(job.result.log_sum_exp, Buffer::Create(static_cast<std::size_t>(log_sum_exp_bytes)));
  return absl::OkStatus();
}

void AttentionEngine::Compute(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                              schedule::SubmitOptions options, Done done, std::int64_t max_sent_bytes) {
  Run(request, tensors, std::move(options), std::move(done), max_sent_bytes, schedule::Clock::now());
}

void AttentionEngine::ComputeAside(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                                   schedule::SubmitOptions options, Done done, std::int64_t max_sent_bytes) {
  if (!TakesLongToPrepare(request)) {
    return Compute(request, tensors, std::move(options), std::move(done), max_sent_bytes);
  }
  std::shared_ptr<Done> waiting;  // null once it has begun
  std::unique_ptr<schedule::Work> preparation;
  std::function<void(const schedule::Outcome&)> ended;
  const absl::Status made = memory::CatchNoMemoryIn([&] {
    waiting = std::make_shared<Done>();
    auto prepare = [this, &request, &tensors, options, waiting, max_sent_bytes, arrival = schedule::Clock::now()] {
      Run(request, tensors, options, std::exchange(*waiting, nullptr), max_sent_bytes, arrival);
    };
    preparation = std::make_unique<Preparation>(std::move(prepare));
    ended = [waiting](const schedule::Outcome& outcome) {
      if (*waiting != nullptr) (*waiting)(outcome.status);
    };
  });
  if (!made.ok()) return done(made);
  *waiting = std::move(done);
  scheduler_.Submit(std::move(preparation), std::move(options), std::move(ended));
}

void AttentionEngine::Run(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                          schedule::SubmitOptions options, Done done, std::int64_t max_sent_bytes,
                          schedule::Clock::time_point arrival) {
  std::shared_ptr<Job> job;
  std::unique_ptr<schedule::Work> work;
  std::function<void(const schedule::Outcome&)> ended;
  const absl::Status begun = memory::CatchNoMemory([&] {
    job = std::make_shared<Job>();
    ATTND_RETURN_IF_ERROR(Prepare(request, tensors, max_sent_bytes, *job));
    ATTND_ASSIGN_OR_RETURN(work, MakeWork(*job));
    ended = [job,
             prepared = absl::FromChrono(schedule::Clock::now() - arrival)](const schedule::Outcome& outcome) mutable {
      const absl::Status completed = job->Complete(prepared, outcome);
      absl::StatusOr<AttentionResult> result(completed.ok() ? absl::StatusOr<AttentionResult>(std::move(job->result))
                                                            : absl::StatusOr<AttentionResult>(completed));
      const Done told = std::move(job->done);
      job.reset();  // whoever is told finds nothing held but the result
      told(std::move(result));
    };
    return absl::OkStatus();
  });
  if (!begun.ok()) {
    work.reset();
    job.reset();
    return done(begun);
  }
  job->done = std::move(done);
  job.reset();  // the last to hold it is `ended`
  scheduler_.Submit(std::move(work), std::move(options), std::move(ended));
}

absl::StatusOr<std::unique_ptr<schedule::Work>> AttentionEngine::MakeWork(Job& job) const {
  kernel::Attention& attention = job.valid.attention;
  job.valid.PointToBias();
  attention.out.data = OutputIsShared(job.valid) ? job.valid.shared->output.data : job.result.output.data();
  attention.log_sum_exp = reinterpret_cast<float*>(LogSumExpIsShared(job.valid) ? job.valid.shared->log_sum_exp.data
                                                                                : job.result.log_sum_exp.data());
  std::unique_ptr<schedule::Work> work = schedule::MakeAttentionWork(attention, kernel_);
  if (work == nullptr) return absl::ResourceExhaustedError("the server has no memory to pack k and v");
  return work;
}

}  // namespace attnd::server
