# attnd_test(NAME SOURCES files... DEPS targets... [ARGS args...])
#
# A GoogleTest program in tests/, registered with ctest under its name as one test. TEST_GOLDEN names tests/golden.
function(attnd_test name)
  cmake_parse_arguments(T "" "" "SOURCES;DEPS;ARGS" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE attnd_warnings ${T_DEPS} GTest::gmock GTest::gtest_main)
  # Of a test's own code, compiling takes the time: -O1 takes a third off it, and -O0 under a sanitizer almost half; but
  # these two compute what they compare with. GCC sees uninitialized variables in the standard library with -O1 that are
  # none.
  set(optimize -O1)
  if(ATTND_SANITIZE AND NOT name MATCHES "^(kernel|schedule)_")
    set(optimize -O0)
  endif()
  target_compile_options(${name} PRIVATE $<$<NOT:$<CONFIG:Debug>>:${optimize}>
                                         $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_compile_definitions(${name} PRIVATE ATTND_GOLDEN_DIR="${PROJECT_SOURCE_DIR}/tests/golden")
  add_test(NAME ${name} COMMAND ${name} ${T_ARGS})
  set_tests_properties(${name} PROPERTIES TIMEOUT 600)
endfunction()
