#include "wire_server.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace attnd::bench {
namespace {

// The address in attnd's line "... listens on ADDRESS (kernel ...".
absl::StatusOr<std::string> AddressOfAttnd(ChildProcess& attnd) {
  constexpr char kBefore[] = " listens on ";
  std::string said;
  while (true) {
    absl::StatusOr<std::string> line = attnd.ReadLine();
    if (!line.ok()) return absl::UnavailableError(absl::StrCat("attnd did not start: ", said));
    const std::size_t found = line->find(kBefore);
    if (found != std::string::npos) {
      const std::size_t begin = found + sizeof(kBefore) - 1;
      return line->substr(begin, line->find(' ', begin) - begin);
    }
    absl::StrAppend(&said, *line, "\n");
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(const std::vector<std::string>& argv, int cpu,
                                                                  PageKind pages) {
  std::vector<std::string> words = argv;
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  std::array<int, 2> output, input;
  if (pipe2(output.data(), O_CLOEXEC) != 0 || pipe2(input.data(), O_CLOEXEC) != 0) {
    return absl::ErrnoToStatus(errno, "pipe2");
  }
  const pid_t pid = fork();
  if (pid < 0) return absl::ErrnoToStatus(errno, "fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (pages == PageKind::kSmall) prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    if (cpu >= 0) {
      cpu_set_t set;
      CPU_ZERO(&set);
      CPU_SET(static_cast<unsigned>(cpu), &set);
      sched_setaffinity(0, sizeof(set), &set);
    }
    dup2(input[0], STDIN_FILENO);
    dup2(output[1], STDOUT_FILENO);
    dup2(output[1], STDERR_FILENO);
    execv(pointers[0], pointers.data());
    _exit(127);
  }
  close(output[1]);
  close(input[0]);
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, output[0], input[1]));
}

ChildProcess::~ChildProcess() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  close(output_);
  close(input_);
}

void ChildProcess::WriteLine(const std::string& line) {
  const std::string text = line + "\n";
  // A failure shows up in ReadLine.
  if (write(input_, text.data(), text.size()) < 0) return;
}

absl::StatusOr<std::string> ChildProcess::ReadLine() {
  while (true) {
    const std::size_t end = unread_.find('\n');
    if (end != std::string::npos) {
      std::string line = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      return line;
    }
    std::array<char, 4096> chunk;
    const ssize_t size = read(output_, chunk.data(), chunk.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return absl::UnavailableError(absl::StrCat("the process ended: ", unread_));
    unread_.append(chunk.data(), static_cast<std::size_t>(size));
  }
}

double ChildProcess::CpuMilliseconds() const {
  clockid_t clock;
  timespec now{};
  if (clock_getcpuclockid(pid_, &clock) == 0) clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

absl::StatusOr<std::unique_ptr<WireServer>> WireServer::Start(const WireServerOptions& options) {
  const auto address = [&options](const char* name) {
    return options.tcp ? std::string("127.0.0.1:0") : absl::StrCat("unix:", options.folder, "/", name);
  };
  auto server = std::unique_ptr<WireServer>(new WireServer);
  absl::StatusOr<std::unique_ptr<ChildProcess>> echo = ChildProcess::Start(
      {options.echo_binary, absl::StrCat("--listen=", address("echo")), absl::StrCat("--empty=", address("empty")),
       absl::StrCat("--channel_settings=", absl::StrJoin(options.channel_settings, ","))},
      options.cpu);
  if (!echo.ok()) return echo.status();
  server->echo_ = *std::move(echo);
  absl::StatusOr<std::string> main = server->echo_->ReadLine();
  if (!main.ok()) return main.status();
  absl::StatusOr<std::string> empty = server->echo_->ReadLine();
  if (!empty.ok()) return absl::UnavailableError(absl::StrCat("the echo did not start: ", *main));
  server->addresses_ = {*main, *empty};
  if (options.echo) return server;

  std::vector<std::string> argv = {options.attnd_binary, absl::StrCat("--listen=", address("attnd")), "--threads=1"};
  if (options.shared_memory) argv.push_back("--shared_memory");
  absl::StatusOr<std::unique_ptr<ChildProcess>> attnd = ChildProcess::Start(argv, options.cpu, options.pages);
  if (!attnd.ok()) return attnd.status();
  server->attnd_ = *std::move(attnd);
  absl::StatusOr<std::string> listens = AddressOfAttnd(*server->attnd_);
  if (!listens.ok()) return listens.status();
  server->addresses_.attnd = *std::move(listens);
  return server;
}

double WireServer::CpuMilliseconds() const { return (attnd_ == nullptr ? echo_ : attnd_)->CpuMilliseconds(); }

}  // namespace attnd::bench
