#include "server/attention/engine.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "memory/no_memory.h"
#include "schedule/attention_plan.h"
#include "schedule/attention_work.h"
#include "schedule/work.h"
#include "server/attention/bias.h"
#include "server/attention/too_long.h"
#include "server/rpc/admission.h"
#include "server/rpc/proto_time.h"
#include "server/rpc/status.h"
#include "server/rpc/status_macros.h"

namespace attnd::server {
namespace {

// Bytes of the request's large fields: tensors, key_bits and key_bias. Lists of a number per sequence are not counted.
std::int64_t SizeOf(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors) {
  const std::size_t key_bias = static_cast<std::size_t>(request.key_bias_size()) * sizeof(float);
  return static_cast<std::int64_t>(tensors.q.size + tensors.k.size + tensors.v.size + request.key_bits().size() +
                                   key_bias);
}

// Whether validating and planning a request takes more than about 0.1 ms: fields shared by all sequences take no time,
// fields per sequence some 100 ns each. The request is not validated yet.
bool TakesLongToPrepare(const v1::ComputeAttentionRequest& request) {
  constexpr std::size_t kLong = 1024;
  const auto numbers = static_cast<std::size_t>(
      std::max({request.query_lengths_size(), request.key_lengths_size(), request.key_starts_size(),
                request.query_offsets_size(), request.prefix_lengths_size(), request.query_segments_size(),
                request.kv_rows_size()}));
  constexpr int kManyBiases = 1 << 16;  // validation looks at each value
  return numbers > kLong || request.key_bits().size() > kLong || request.key_bias_size() > kManyBiases;
}

// The outcome's status; if the queue was too long, an error with a retry delay.
absl::Status StatusOf(const schedule::Outcome& outcome, schedule::Clock::time_point deadline,
                      absl::Duration max_queue_time) {
  if (outcome.come_back == absl::ZeroDuration()) return outcome.status;
  const schedule::TooLong too_long{absl::ToDoubleSeconds(outcome.estimate), absl::ToDoubleSeconds(outcome.come_back)};
  return TooLongError(too_long, deadline, max_queue_time);
}

// Prepares a request, as a work of one item. Its cost is above kInlineCost, so that it does not run on the submitting
// thread.
class Preparation final : public schedule::Work {
 public:
  explicit Preparation(std::function<void()> prepare) : prepare_(std::move(prepare)) {}
  double cost() const override { return kCost; }
  std::optional<schedule::Item> Next() override {
    if (ready_ == 0) return std::nullopt;
    ready_ = 0;
    return schedule::Item{kCost, 0, 0, 0, 1};
  }
  std::int64_t ready() const override { return ready_; }
  void Run(const schedule::Item&, schedule::Arena&, schedule::Pause) override { std::exchange(prepare_, nullptr)(); }
  void Finish(const schedule::Item&) override {}
  bool tells_speed() const override { return false; }

 private:
  static constexpr double kCost = 1 << 20;
  std::function<void()> prepare_;
  std::int64_t ready_ = 1;
};

}  // namespace

// What a request holds from its start until its result is handed over.
struct AttentionEngine::Job {
  std::shared_ptr<const model::Model> model;  // null with BIAS_NONE
  ValidAttention valid;
  std::optional<schedule::AttentionPlan> plan;
  std::int64_t work_bytes = 0;  // the part of result.lease for memory that only the computation needs
  AttentionResult result;
  Done done;  // set last, when nothing can fail before the scheduler takes the work

  // Completes the result of a computation that succeeded: sets its header and gives work_bytes back.
  absl::Status Complete(absl::Duration prepared, const schedule::Outcome& outcome) {
    return memory::CatchNoMemoryIn([&] {
      v1::ComputeAttentionResponse& header = result.header;
      if (model != nullptr) {
        header.set_version(model->version());
        header.set_content_hash(model->content_hash());
      }
      header.set_dtype(valid.output_dtype);
      *header.mutable_queue_time() = ToProto(prepared + outcome.queued);
      *header.mutable_compute_time() = ToProto(outcome.computed);
      result.lease.GiveBack(work_bytes);  // the work has been destroyed
    });
  }
};

void AttentionResult::HoldInBuffers() {
  if (output.size() == 0) {
    if (log_sum_exp.size() > 0) log_sum_exp.Hold(std::move(lease));
    return;
  }
  log_sum_exp.Hold(lease.Split(static_cast<std::int64_t>(log_sum_exp.size())));
  output.Hold(std::move(lease));
}

AttentionEngine::AttentionEngine(const Limits& limits, model::Registry& registry, const kernel::Kernel& kernel,
                                 int threads, const SharedMemory* memory, memory::Ledger* ledger,
                                 absl::Duration max_queue_time)
    : validator_(limits, memory),
      own_ledger_(ledger != nullptr ? nullptr
                                    : std::make_unique<memory::Ledger>(memory::Ledger::Options{
                                          .total = limits.max_inflight_bytes, .shares = false})),
      ledger_(ledger != nullptr ? *ledger : *own_ledger_),
      nobody_(ledger_.AccountOf("")),
      registry_(registry),
      kernel_(kernel),
      max_queue_time_(max_queue_time),
      scheduler_(threads, absl::ToChronoNanoseconds(max_queue_time)) {}

absl::Status AttentionEngine::Prepare(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                                      const ComputeOptions& options, std::int64_t max_sent_bytes, Job& job) {
  ATTND_RETURN_IF_ERROR(CheckBias(request));
  if (request.bias() != v1::BIAS_NONE) {
    ATTND_ASSIGN_OR_RETURN(job.model, registry_.Find(request.model(), request.version()));
  }
  // Reserved first: Validate allocates these lists before the sizes of everything else are known.
  const std::int64_t places = PlacesBytes(request);
  if (places > 0) {
    ATTND_ASSIGN_OR_RETURN(memory::Ticket lists, Admit(ledger_, AccountOf(options), places, job.result.lease.bytes()));
    job.result.lease.Add(std::move(lists));
  }
  ATTND_ASSIGN_OR_RETURN(job.valid, validator_.Validate(request, tensors, job.model.get()));
  return TakeMemory(SizeOf(request, tensors), places, options, max_sent_bytes, job);
}

absl::Status AttentionEngine::TakeMemory(std::int64_t request_bytes, std::int64_t list_bytes,
                                         const ComputeOptions& options, std::int64_t max_sent_bytes, Job& job) {
  const ValidAttention& valid = job.valid;
  const std::int64_t output_bytes = valid.sent_output_bytes();
  const std::int64_t log_sum_exp_bytes = valid.sent_log_sum_exp_bytes();
  ATTND_RETURN_IF_ERROR(CheckSent(valid, max_sent_bytes));
  job.plan.emplace(valid.attention, kernel_);
  job.work_bytes = schedule::AttentionWorkBytes(*job.plan) + list_bytes;
  job.result.request_bytes = request_bytes;
  const std::int64_t bytes = request_bytes + output_bytes + log_sum_exp_bytes + job.work_bytes;
  const std::int64_t held = job.result.lease.bytes();
  ATTND_ASSIGN_OR_RETURN(memory::Ticket rest, Admit(ledger_, AccountOf(options), bytes - held, held));
  job.result.lease.Add(std::move(rest));
  ATTND_ASSIGN_OR_RETURN(job.result.output, Buffer::Create(static_cast<std::size_t>(output_bytes)));
  ATTND_ASSIGN_OR_RETURN(job.result.log_sum_exp, Buffer::Create(static_cast<std::size_t>(log_sum_exp_bytes)));
  return absl::OkStatus();
}

void AttentionEngine::Compute(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                              ComputeOptions options, Done done, std::int64_t max_sent_bytes) {
  const auto prepare = [&](const ComputeOptions& kept, Job& job) {
    return Prepare(request, tensors, kept, max_sent_bytes, job);
  };
  Run(prepare, options, std::move(done), schedule::Clock::now(), {});
}

void AttentionEngine::ComputeValid(ValidAttention valid, std::int64_t request_bytes, ComputeOptions options,
                                   Done done) {
  const auto prepare = [&](const ComputeOptions& kept, Job& job) {
    job.valid = std::move(valid);
    return TakeMemory(request_bytes, 0, kept, kAnyBytes, job);
  };
  Run(prepare, options, std::move(done), schedule::Clock::now(), {});
}

void AttentionEngine::ComputeAside(const v1::ComputeAttentionRequest& request, const RequestTensors& tensors,
                                   ComputeOptions options, Done done, std::int64_t max_sent_bytes) {
  if (!TakesLongToPrepare(request)) {
    return Compute(request, tensors, std::move(options), std::move(done), max_sent_bytes);
  }
  // What the request holds until it is prepared.
  struct Waiting {
    Done done;
    memory::Ticket lease;
  };
  std::shared_ptr<Waiting> waiting;
  Aside aside;
  const absl::Status made = memory::CatchNoMemory([&] {
    waiting = std::make_shared<Waiting>();
    ATTND_ASSIGN_OR_RETURN(waiting->lease, Admit(ledger_, AccountOf(options), SizeOf(request, tensors)));
    auto prepare = [this, &request, &tensors, options, waiting, max_sent_bytes,
                    arrival = schedule::Clock::now()](const absl::Status& turn) {
      if (!turn.ok()) {
        waiting->lease = {};
        return waiting->done(turn);
      }
      const auto prepare_job = [&](const ComputeOptions& kept, Job& job) {
        return Prepare(request, tensors, kept, max_sent_bytes, job);
      };
      Run(prepare_job, options, std::move(waiting->done), arrival, std::move(waiting->lease));
    };
    aside = MakeAside(std::move(prepare), options);
    return absl::OkStatus();
  });
  if (!made.ok()) {
    aside = {};
    waiting.reset();  // so that nothing is held when `done` is called
    return done(made);
  }
  waiting->done = std::move(done);
  waiting.reset();
  Submit(std::move(aside), std::move(options));
}

void AttentionEngine::RunAside(std::function<void(const absl::Status&)> work, ComputeOptions options) {
  Aside aside = MakeAside(std::move(work), options);
  Submit(std::move(aside), std::move(options));
}

AttentionEngine::Aside AttentionEngine::MakeAside(std::function<void(const absl::Status&)> work,
                                                  const ComputeOptions& options) const {
  const auto left = std::make_shared<std::function<void(const absl::Status&)>>(std::move(work));  // null once called
  Aside aside;
  aside.work = std::make_unique<Preparation>([left] { std::exchange(*left, nullptr)(absl::OkStatus()); });
  aside.ended = [left, deadline = options.deadline,
                 max_queue_time = max_queue_time_](const schedule::Outcome& outcome) {
    if (*left != nullptr) std::exchange(*left, nullptr)(StatusOf(outcome, deadline, max_queue_time));
  };
  return aside;
}

void AttentionEngine::Submit(Aside aside, ComputeOptions options) {
  options.caller = AccountOf(options).get();
  scheduler_.Submit(std::move(aside.work), std::move(options), std::move(aside.ended));
}

const std::shared_ptr<memory::Account>& AttentionEngine::AccountOf(const ComputeOptions& options) const {
  return options.account != nullptr ? options.account : nobody_;
}

void AttentionEngine::Run(absl::FunctionRef<absl::Status(const ComputeOptions&, Job&)> prepare, ComputeOptions options,
                          Done done, schedule::Clock::time_point arrival, memory::Ticket lease) {
  std::shared_ptr<Job> job;
  std::unique_ptr<schedule::Work> work;
  std::function<void(const schedule::Outcome&)> ended;
  const absl::Status begun = memory::CatchNoMemory([&] {
    job = std::make_shared<Job>();
    job->result.lease = std::move(lease);
    ATTND_RETURN_IF_ERROR(prepare(options, *job));
    ATTND_ASSIGN_OR_RETURN(work, MakeWork(*job));
    ended = [job, deadline = options.deadline, max_queue_time = max_queue_time_,
             prepared = absl::FromChrono(schedule::Clock::now() - arrival)](const schedule::Outcome& outcome) mutable {
      const absl::Status completed =
          outcome.status.ok() ? job->Complete(prepared, outcome) : StatusOf(outcome, deadline, max_queue_time);
      absl::StatusOr<AttentionResult> result(completed.ok() ? absl::StatusOr<AttentionResult>(std::move(job->result))
                                                            : absl::StatusOr<AttentionResult>(completed));
      const Done told = std::move(job->done);
      job.reset();  // so that only the result is held when `told` is called
      told(std::move(result));
    };
    return absl::OkStatus();
  });
  if (!begun.ok()) {
    work.reset();
    job.reset();
    lease = {};
    return done(begun);
  }
  job->done = std::move(done);
  options.caller = AccountOf(options).get();  // kept alive by the job's ticket
  job.reset();                                // only `ended` holds it now
  scheduler_.Submit(std::move(work), std::move(options), std::move(ended));
}

absl::StatusOr<std::unique_ptr<schedule::Work>> AttentionEngine::MakeWork(Job& job) const {
  kernel::Attention& attention = job.valid.attention;
  job.valid.PointToBias();
  attention.out.data = job.valid.output_is_shared() ? job.valid.shared->output.data : job.result.output.data();
  attention.log_sum_exp = reinterpret_cast<float*>(
      job.valid.log_sum_exp_is_shared() ? job.valid.shared->log_sum_exp.data : job.result.log_sum_exp.data());
  std::unique_ptr<schedule::Work> work = schedule::MakeAttentionWork(attention, *job.plan);
  if (work == nullptr) return absl::ResourceExhaustedError("the server has no memory to pack k and v");
  return work;
}

}  // namespace attnd::server
