// Linked into everything that is built with ThreadSanitizer. The system's gRPC is built without it: what its threads
// and locks order is invisible, and every object that crosses from one of its threads to ours would look like a race.
// And an allocation that is too large fails as it does without a sanitizer.
extern "C" const char* __tsan_default_options() {
  return "ignore_noninstrumented_modules=1:allocator_may_return_null=1";
}

// Its locks are seen (absl_synchronization.cc), its atomic counters and queues are not. gRPC's headers are compiled
// with us: what they do to their own objects, between a call's start and its completion on another thread, is ordered
// by those. Only the innermost function counts (race_top), so that our handlers, which gRPC calls, are not left out.
extern "C" const char* __tsan_default_suppressions() {
  return "race_top:grpc::\n"
         // These end in std::function and call nothing of ours.
         "race:grpc::internal::InterceptorBatchMethodsImpl::\n"
         "race:grpc::internal::CallbackWithSuccessTag::Clear\n";
}
