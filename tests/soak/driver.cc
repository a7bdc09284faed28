// Mixed load on a running attnd, every answer compared with a golden file; run by scripts/soak.sh.
//   soak_driver --servers ADDRESS,... --golden t5-tiny_decoder0_512.safetensors --seconds N [--corrupt]
// The server's model root has the model t5-tiny once more, as loaded.json. Prints how many calls of each kind there
// were; fails at the first answer that is wrong and the first call that ends as it should not. --corrupt changes one
// expected number: the run must fail.
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attnd/client.h"
#include "files/safetensors.h"

ABSL_FLAG(std::vector<std::string>, servers, {}, "the server's addresses, each used by some of the threads");
ABSL_FLAG(std::string, golden, "", "q, k, v and o of the model t5-tiny");
ABSL_FLAG(double, seconds, 60, "how long");
ABSL_FLAG(bool, corrupt, false, "expect one wrong number");

namespace attnd::soak {
namespace {

constexpr std::int64_t kHeads = 8, kLength = 512, kDim = 64;
constexpr double kTolerance = 1e-4;  // tests/golden/trained/README.md
constexpr char kModel[] = "t5-tiny";

// [heads, length, dim]
struct Golden {
  std::vector<float> q, k, v, o;
};

Golden ReadGolden(const std::string& path) {
  const auto file = files::SafetensorsFile::Open(*files::OpenFile(path));
  if (!file.ok()) {
    std::fprintf(stderr, "%s: %s\n", path.c_str(), file.status().ToString().c_str());
    std::exit(2);
  }
  const auto read = [&](const char* name) { return *file->ReadFloats(*file->Find(name)); };
  return {read("q"), read("k"), read("v"), read("o")};
}

// Rows [first, first + count) of each head, `copies` times.
std::vector<float> Rows(const std::vector<float>& all, std::int64_t first, std::int64_t count, std::int64_t copies) {
  std::vector<float> rows;
  rows.reserve(static_cast<std::size_t>(copies * kHeads * count * kDim));
  for (std::int64_t c = 0; c < copies; ++c) {
    for (std::int64_t h = 0; h < kHeads; ++h) {
      const auto begin = all.begin() + (h * kLength + first) * kDim;
      rows.insert(rows.end(), begin, begin + count * kDim);
    }
  }
  return rows;
}

// The queries [first, first + count) and the keys that the last of them sees, `batch` times: what a prompt's last
// tokens ask for. Causal attention gives the golden file's rows.
class Problem {
 public:
  Problem(const Golden& golden, std::int64_t first, std::int64_t count, std::int64_t batch)
      : batch_(batch),
        count_(count),
        keys_(first + count),
        q_(Rows(golden.q, first, count, batch)),
        k_(Rows(golden.k, 0, keys_, batch)),
        v_(Rows(golden.v, 0, keys_, batch)),
        expected_(Rows(golden.o, first, count, batch)) {}

  ComputeRequest Request(const std::string& model) const {
    ComputeRequest request;
    request.model = model;
    request.q = {q_.data(), DType::kFp32, {batch_, kHeads, count_, kDim}};
    request.k = {k_.data(), DType::kFp32, {batch_, kHeads, keys_, kDim}};
    request.v = {v_.data(), DType::kFp32, {batch_, kHeads, keys_, kDim}};
    return request;
  }

  // The same with all tensors in memory that can be shared, and the output there too.
  struct Shared {
    SharedBuffer buffer;
    ComputeRequest request;
    const float* output;
  };
  absl::StatusOr<Shared> InSharedMemory(Client& client, const std::string& model) const {
    const std::size_t floats = q_.size() + k_.size() + v_.size() + expected_.size();
    absl::StatusOr<SharedBuffer> buffer = client.AllocateBuffer(floats * sizeof(float));
    if (!buffer.ok()) return buffer.status();
    Shared shared{*buffer, Request(model), nullptr};
    auto* at = static_cast<float*>(buffer->data());
    for (TensorView* tensor : {&shared.request.q, &shared.request.k, &shared.request.v}) {
      const std::vector<float>& from = tensor == &shared.request.q ? q_ : tensor == &shared.request.k ? k_ : v_;
      std::memcpy(at, from.data(), from.size() * sizeof(float));
      tensor->data = at;
      tensor->owner = buffer->owner();
      at += from.size();
    }
    shared.request.output = {at, expected_.size() * sizeof(float)};
    shared.output = at;
    return shared;
  }

  absl::Status Check(const Tensor& output) const {
    if (output.size_bytes() != expected_.size() * sizeof(float))
      return absl::DataLossError("an output of another size");
    std::vector<float> values(expected_.size());
    output.CopyTo(values.data());
    return Check(values.data());
  }
  absl::Status Check(const float* values) const {
    for (std::size_t i = 0; i < expected_.size(); ++i) {
      if (std::isfinite(values[i]) && std::abs(values[i] - expected_[i]) <= kTolerance) continue;
      return absl::DataLossError(absl::StrCat("wrong answer: element ", i, " is ", values[i], ", not ", expected_[i]));
    }
    return absl::OkStatus();
  }

 private:
  std::int64_t batch_, count_, keys_;
  std::vector<float> q_, k_, v_, expected_;
};

// Runs what is added, each again and again on a thread of its own, until the time is over or one fails. Thread-safe.
class Load {
 public:
  using Random = std::mt19937;

  void Add(const std::string& kind, std::function<absl::Status(Random&)> once) {
    threads_.emplace_back([this, kind, once = std::move(once), seed = threads_.size()] {
      Random random(static_cast<unsigned>(seed));
      std::int64_t calls = 0;
      while (!over_.HasBeenNotified()) {
        const absl::Status status = once(random);
        if (!status.ok()) {
          Fail(kind, status);
          break;
        }
        ++calls;
      }
      absl::MutexLock lock(&mutex_);
      calls_[kind] += calls;
    });
  }

  // Whether nothing failed.
  bool Run(absl::Duration time) {
    const absl::Time end = absl::Now() + time;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithDeadline(absl::Condition(&failed_), end);
    }
    over_.Notify();
    for (std::thread& thread : threads_) thread.join();
    absl::MutexLock lock(&mutex_);
    for (const auto& [kind, calls] : calls_) std::printf("%10lld  %s\n", static_cast<long long>(calls), kind.c_str());
    return !failed_;
  }

 private:
  void Fail(const std::string& kind, const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    failed_ = true;
    std::fprintf(stderr, "%s: %s\n", kind.c_str(), status.ToString().c_str());
  }

  absl::Mutex mutex_;
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, std::int64_t> calls_ ABSL_GUARDED_BY(mutex_);
  absl::Notification over_;
  std::vector<std::thread> threads_;
};

// A client with connections of its own: channels with the same settings share theirs.
Client NewClient(const std::string& server) {
  static std::atomic<int> count{0};
  ClientOptions options;
  options.user_agent = absl::StrCat("soak-", count++);
  return *Client::Create(server, options);
}

absl::Status Expect(const absl::Status& status, absl::StatusCode code) {
  if (status.code() == code) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("expected ", absl::StatusCodeToString(code), ", got ", status.ToString().substr(0, 300)));
}

absl::Status ComputeAndCheck(Client& client, const Problem& problem, const std::string& model) {
  const absl::StatusOr<ComputeReply> reply = client.Compute(problem.Request(model));
  if (!reply.ok()) return reply.status();
  return problem.Check(reply->output);
}

// A model comes, answers, is read again, answers, and goes.
absl::Status LoadAndUnload(Client& client, const Problem& problem) {
  if (const auto loaded = client.LoadModel("loaded.json", "coming"); !loaded.ok()) return loaded.status();
  if (absl::Status s = ComputeAndCheck(client, problem, "coming"); !s.ok()) return s;
  if (const auto again = client.ReloadModel("coming"); !again.ok()) return again.status();
  if (absl::Status s = ComputeAndCheck(client, problem, "coming"); !s.ok()) return s;
  if (absl::Status s = client.UnloadModel("coming"); !s.ok()) return s;
  return Expect(client.Compute(problem.Request("coming")).status(), absl::StatusCode::kNotFound);
}

absl::Status UploadAndUnload(Client& client, const Problem& problem) {
  const absl::StatusOr<Model> model = client.GetModel(kModel, 0, /*include_values=*/true);
  if (!model.ok()) return model.status();
  for (const Table& table : model->tables) {
    if (const auto s = client.UploadTable("sent", table); !s.ok()) return s.status();
  }
  if (absl::Status s = ComputeAndCheck(client, problem, "sent"); !s.ok()) return s;
  return client.UnloadModel("sent");
}

// Cancelled, or late, at a random moment; if it was in time, the answer is right.
absl::Status CutShort(Client& client, const Problem& problem, Load::Random& random) {
  const absl::Duration moment = absl::Microseconds(std::uniform_int_distribution<int>(0, 40000)(random));
  CallOptions options;
  const bool cancels = random() % 2 == 0;
  if (cancels) {
    options.cancellation = std::make_shared<Cancellation>();
  } else {
    options.deadline = absl::Now() + moment;
  }
  auto future = client.ComputeFuture(problem.Request(kModel), options);
  if (cancels) {
    absl::SleepFor(moment);
    options.cancellation->Cancel();
  }
  const absl::StatusOr<ComputeReply> reply = future.get();
  if (reply.ok()) return problem.Check(reply->output);
  // Refused where too much stands before it.
  if (!cancels && absl::IsResourceExhausted(reply.status()) &&
      absl::StartsWith(reply.status().message(), "deadline: ")) {
    return absl::OkStatus();
  }
  return Expect(reply.status(), cancels ? absl::StatusCode::kCancelled : absl::StatusCode::kDeadlineExceeded);
}

int Main() {
  Golden golden = ReadGolden(absl::GetFlag(FLAGS_golden));
  if (absl::GetFlag(FLAGS_corrupt)) golden.o.back() += 1;
  const Problem token(golden, kLength - 1, 1, 1), middle(golden, 448, 64, 2), whole(golden, 0, kLength, 1),
      large(golden, 0, kLength, 8);
  Load load;
  const std::vector<std::string> servers = absl::GetFlag(FLAGS_servers);
  for (const std::string& server : servers) {
    // Connected, so that what is cut short are calls and not connections that are being made.
    const auto client = [&] {
      auto connected = std::make_shared<Client>(NewClient(server));
      if (const auto info = connected->GetServerInfo(); !info.ok())
        std::cerr << server << ": " << info.status() << "\n";
      return connected;
    };
    load.Add("one token, " + server, [&, c = client()](Load::Random&) { return ComputeAndCheck(*c, token, kModel); });
    load.Add("128 rows, " + server, [&, c = client()](Load::Random&) { return ComputeAndCheck(*c, middle, kModel); });
    load.Add("512 rows, four at once, " + server, [&, c = client()](Load::Random&) {
      std::vector<std::future<absl::StatusOr<ComputeReply>>> futures;
      for (int i = 0; i < 4; ++i) futures.push_back(c->ComputeFuture(whole.Request(kModel)));
      absl::Status status;
      for (auto& future : futures) {
        const absl::StatusOr<ComputeReply> reply = future.get();
        status.Update(reply.ok() ? whole.Check(reply->output) : reply.status());
      }
      return status;
    });
    load.Add("4096 rows in pieces, " + server,
             [&, c = client()](Load::Random&) { return ComputeAndCheck(*c, large, kModel); });
    load.Add("512 rows in shared memory, " + server, [&, c = client()](Load::Random&) {
      const absl::StatusOr<Problem::Shared> shared = whole.InSharedMemory(*c, kModel);
      if (!shared.ok()) return shared.status();
      if (const auto reply = c->Compute(shared->request); !reply.ok()) return reply.status();
      return whole.Check(shared->output);
    });
    load.Add("cut short, " + server, [&, c = client()](Load::Random& random) { return CutShort(*c, large, random); });
    load.Add("a new connection, " + server, [&, server](Load::Random&) {
      Client c = NewClient(server);
      absl::Status status = ComputeAndCheck(c, token, kModel);
      absl::SleepFor(absl::Milliseconds(20));
      return status;
    });
    load.Add("refused, " + server, [&, c = client()](Load::Random&) {
      absl::SleepFor(absl::Milliseconds(10));
      return Expect(c->Compute(token.Request("nobody")).status(), absl::StatusCode::kNotFound);
    });
  }
  load.Add("model loaded and unloaded", [&, c = std::make_shared<Client>(NewClient(servers.front()))](Load::Random&) {
    absl::SleepFor(absl::Milliseconds(50));
    return LoadAndUnload(*c, middle);
  });
  load.Add("model uploaded and unloaded", [&, c = std::make_shared<Client>(NewClient(servers.front()))](Load::Random&) {
    absl::SleepFor(absl::Milliseconds(50));
    return UploadAndUnload(*c, middle);
  });
  return load.Run(absl::Seconds(absl::GetFlag(FLAGS_seconds))) ? 0 : 1;
}

}  // namespace
}  // namespace attnd::soak

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (absl::GetFlag(FLAGS_servers).empty() || absl::GetFlag(FLAGS_golden).empty()) {
    std::fprintf(stderr, "--servers and --golden are needed\n");
    return 2;
  }
  return attnd::soak::Main();
}
