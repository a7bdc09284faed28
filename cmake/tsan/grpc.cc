// Linked into everything that is built with ThreadSanitizer. The system's gRPC is built without it: what its threads and
// locks order is invisible, and every object that crosses from one of its threads to ours would look like a race.
// And an allocation that is too large fails as it does without a sanitizer.
extern "C" const char* __tsan_default_options() {
  return "ignore_noninstrumented_modules=1:allocator_may_return_null=1";
}

// gRPC's headers are compiled with us: their frames are on the stack wherever gRPC calls a handler or completes a call.
// Races between threads of our own have no such frame and are reported.
extern "C" const char* __tsan_default_suppressions() { return "race:grpc::\n"; }
