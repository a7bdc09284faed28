// Linked into everything that is built with ThreadSanitizer. The system's gRPC is built without it. Its locks are
// visible (absl_synchronization.cc), but its atomic counters and queues are not, so what they hand from one of its
// threads to ours would look like a race. The functions below replace gRPC's, as those for Abseil do, and tell
// ThreadSanitizer what is handed over: an operation's tag, and a slice's memory. The code under test needs no changes
// for ThreadSanitizer.
#include <sanitizer/tsan_interface.h>

#include <cstddef>
#include <cstdint>

#include "real.h"

// Also lets an allocation that is too large fail as it does without a sanitizer.
extern "C" const char* __tsan_default_options() {
  return "ignore_noninstrumented_modules=1:allocator_may_return_null=1";
}

// gRPC's headers are compiled with our code. What they do to their own objects between the start of a call and its
// completion on another thread is ordered by gRPC. race_top matches only the innermost function, so that our handlers,
// which gRPC calls, are still checked.
extern "C" const char* __tsan_default_suppressions() {
  return "race_top:grpc::\n"
         // These end in std::function and call none of our code. Some are inlined and then appear without their class.
         "race:grpc::internal::InterceptorBatchMethodsImpl::\n"
         "race:~InterceptorBatchMethodsImpl\n"
         "race:SetFinishInterceptionHookPoint\n"
         "race:grpc::internal::CallbackWithSuccessTag::Clear\n"
         // The end of a reactor, after everything that it started: gRPC counts the operations under way.
         "race:ServerCallbackUnaryImpl::CallOnDone\n"
         "race:ServerCallbackWriterImpl::CallOnDone\n"
         "race:ServerCallbackReaderWriterImpl::CallOnDone\n";
}

namespace {

// gRPC's own types as they are passed: see grpc/impl/codegen/grpc_types.h and gpr_types.h.
struct Timespec {
  std::int64_t seconds;
  std::int32_t nanoseconds;
  std::int32_t clock;
};
struct Event {
  std::int32_t type;
  std::int32_t success;
  void* tag;
};
struct Slice {
  void* words[4];
};

// A slice's owner, and the function that releases it.
struct Loan {
  void (*destroy)(void*);
  void* owner;

  static void Return(void* self) {
    const auto* loan = static_cast<Loan*>(self);
    __tsan_acquire(self);
    loan->destroy(loan->owner);
    delete loan;
  }
};

}  // namespace

// What happens before an operation starts happens before its tag leaves the completion queue.
extern "C" int grpc_call_start_batch(void* call, const void* operations, std::size_t count, void* tag, void* reserved) {
  REAL(grpc_call_start_batch);
  __tsan_release(tag);
  return real(call, operations, count, tag, reserved);
}
extern "C" Event grpc_completion_queue_next(void* queue, Timespec deadline, void* reserved) {
  REAL(grpc_completion_queue_next);
  const Event event = real(queue, deadline, reserved);
  constexpr std::int32_t kOperationComplete = 2;
  if (event.type == kOperationComplete) __tsan_acquire(event.tag);  // otherwise it has no tag
  return event;
}

// grpc::Alarm::SetInternal(CompletionQueue*, gpr_timespec, void* tag), whose tag gRPC wraps, and
// grpc::CompletionQueue::AsyncNextInternal(void** tag, bool* ok, gpr_timespec deadline), which unwraps it.
#define ALARM_SET _ZN4grpc5Alarm11SetInternalEPNS_15CompletionQueueE12gpr_timespecPv
extern "C" void ALARM_SET(void* self, void* queue, Timespec time, void* tag) {
  REAL(ALARM_SET);
  __tsan_release(tag);
  real(self, queue, time, tag);
}
#define QUEUE_NEXT _ZN4grpc15CompletionQueue17AsyncNextInternalEPPvPb12gpr_timespec
extern "C" int QUEUE_NEXT(void* self, void** tag, bool* ok, Timespec deadline) {
  REAL(QUEUE_NEXT);
  const int status = real(self, tag, ok, deadline);
  constexpr int kGotEvent = 1;
  if (status == kGotEvent) __tsan_acquire(*tag);
  return status;
}

// What happens before a slice is made of lent memory happens before the memory is returned.
extern "C" Slice grpc_slice_new_with_user_data(void* data, std::size_t size, void (*destroy)(void*), void* owner) {
  REAL(grpc_slice_new_with_user_data);
  auto* loan = new Loan{destroy, owner};
  __tsan_release(loan);
  return real(data, size, &Loan::Return, loan);
}
