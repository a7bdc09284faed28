#!/usr/bin/env bash
# Builds the code that locks and schedules with Clang, warnings (including thread-safety analysis) as errors, and runs its
# tests under ThreadSanitizer.
#   scripts/test-threads.sh [CTEST_ARGUMENT...]
# The other tests run under the other sanitizers, whose build has the same warnings.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

tests=(
  # the engine
  heap_libc_test memory_ledger_test memory_pace_test registry_test registry_threads_test
  schedule_attention_work_test schedule_default_threads_test schedule_ends_test schedule_fairness_test schedule_intake_test
  schedule_pause_test schedule_queue_test schedule_scheduler_test
  # the server (the e2e tests cover its services: the services' unit tests use gRPC's in-process channel, whose memory
  # ordering ThreadSanitizer cannot see)
  server_attention_engine_test server_attention_local_service_test
  server_models_executor_test server_net_acceptor_test server_rpc_call_gate_test server_rpc_stall_watch_test
  server_serving_server_test
  server_shm_closer_test server_shm_connection_test server_shm_listener_test server_shm_peer_socket_test
  server_shm_shared_memory_test server_wire_buffer_test
  # the client
  client_compute_test client_lifetime_test client_local_calls_test client_local_futures_test client_local_session_test
  client_retry_test client_shared_memory_test client_staging_test client_stream_test
  # both
  e2e_cancel_test e2e_frozen_server_test e2e_intake_test e2e_ledger_test e2e_limits_test e2e_load_test e2e_local_calls_test
  e2e_local_client_test e2e_local_futures_test e2e_models_test e2e_probes_test e2e_queue_test e2e_restart_test
  e2e_session_client_test e2e_session_test e2e_shared_memory_test e2e_stall_test e2e_stop_test
  e2e_stream_test
)
checks=(tsan_locks tsan_locks_unseen) # that ThreadSanitizer works: tests/checks/tsan

scripts/setup.sh --clang
build=$root/build-tsan
build_attnd tsan "$build" "${tests[@]}" "${checks[@]}" -- -DATTND_TESTS=ON
pattern="^($(IFS='|'; echo "${tests[*]}")|tsan_.*)\$"
ctest --test-dir "$build" --output-on-failure --no-tests=error --output-log "$build/logs/ctest.log" -j "$(nproc)" \
  -R "$pattern" "$@"
