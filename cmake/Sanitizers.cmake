# ATTND_SANITIZE: builds everything with the named sanitizers, e.g. address,undefined or thread.
if(NOT ATTND_SANITIZE)
  return()
endif()
add_compile_options(-fsanitize=${ATTND_SANITIZE} -fno-omit-frame-pointer -g1)
add_link_options(-fsanitize=${ATTND_SANITIZE})
if(ATTND_SANITIZE MATCHES undefined)
  # The vptr check opens a file descriptor to look at an object's type. If none is left, as in some tests, it reports an
  # error that is none.
  add_compile_options(-fno-sanitize=vptr)
  # The function check needs type descriptors, which a kernel must not reference (tests/kernel, kernel_symbols_test).
  add_compile_options($<$<CXX_COMPILER_ID:Clang>:-fno-sanitize=function>)
endif()

if(ATTND_SANITIZE MATCHES thread)
  # Tells ThreadSanitizer what Abseil's locks and gRPC's queues order.
  add_library(attnd_tsan OBJECT ${CMAKE_CURRENT_LIST_DIR}/tsan/absl_synchronization.cc
                                ${CMAKE_CURRENT_LIST_DIR}/tsan/grpc.cc)
  # Linked into every executable except those with the property ATTND_TSAN_BARE.
  set(executable $<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>)
  set(bare $<BOOL:$<TARGET_PROPERTY:ATTND_TSAN_BARE>>)
  link_libraries($<$<AND:${executable},$<NOT:${bare}>>:$<TARGET_OBJECTS:attnd_tsan>>)
endif()
