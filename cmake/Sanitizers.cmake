# ATTND_SANITIZE: builds everything with the sanitizers named, e.g. address,undefined or thread.
if(NOT ATTND_SANITIZE)
  return()
endif()
add_compile_options(-fsanitize=${ATTND_SANITIZE} -fno-omit-frame-pointer -g1)
add_link_options(-fsanitize=${ATTND_SANITIZE})
if(ATTND_SANITIZE MATCHES undefined)
  # To look at an object's type it takes a descriptor, and where none is left (as some tests have it) it finds a fault
  # that is none.
  add_compile_options(-fno-sanitize=vptr)
  # Nor has a kernel, which may need nothing but itself (tests/kernel, kernel_symbols_test), the descriptors of functions.
  add_compile_options($<$<CXX_COMPILER_ID:Clang>:-fno-sanitize=function>)
endif()

if(ATTND_SANITIZE MATCHES thread)
  # What Abseil's locks do, said to ThreadSanitizer.
  add_library(attnd_tsan OBJECT ${CMAKE_CURRENT_LIST_DIR}/tsan/absl_synchronization.cc
                                ${CMAKE_CURRENT_LIST_DIR}/tsan/grpc.cc)
  # For every executable but those with the property ATTND_TSAN_BARE.
  set(executable $<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>)
  set(bare $<BOOL:$<TARGET_PROPERTY:ATTND_TSAN_BARE>>)
  link_libraries($<$<AND:${executable},$<NOT:${bare}>>:$<TARGET_OBJECTS:attnd_tsan>>)
endif()
