# attnd_test(NAME SOURCES files... DEPS targets... [ARGS args...])
#
# A GoogleTest program in tests/, registered with ctest as one test with its name. ATTND_GOLDEN_DIR is the path of
# tests/golden. A test in it that does not end is named, and ends the program (tests/support/watchdog.h).
function(attnd_test name)
  cmake_parse_arguments(T "" "" "SOURCES;DEPS;ARGS" ${ARGN})
  attnd_test_main()
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE attnd_warnings ${T_DEPS} GTest::gmock attnd_test_main)
  # A test's own code takes longer to compile than to run: -O1 saves a third of the compile time, and -O0 under a
  # sanitizer almost half. Not -O0 for kernel and schedule, which compute the values that they compare with. With -O1,
  # GCC warns of uninitialized variables in the standard library that are initialized.
  set(optimize -O1)
  if(CMAKE_BUILD_TYPE STREQUAL Debug OR (ATTND_SANITIZE AND NOT name MATCHES "^(kernel|schedule)_"))
    set(optimize -O0)
  endif()
  # -pthread, as the precompiled headers have it: not all that a test links asks for it.
  target_compile_options(${name} PRIVATE ${optimize} -pthread $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  if(ATTND_PRECOMPILED)
    attnd_precompiled(${ATTND_PRECOMPILED} ${optimize} precompiled)
    target_precompile_headers(${name} REUSE_FROM ${precompiled})
    # GCC no longer knows that the standard library's code is a system header's, and warns of its strings.
    target_compile_options(${name} PRIVATE "$<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-stringop-overflow;-Wno-stringop-overread>")
  endif()
  target_compile_definitions(${name} PRIVATE ATTND_GOLDEN_DIR="${PROJECT_SOURCE_DIR}/tests/golden")
  add_test(NAME ${name} COMMAND ${name} ${T_ARGS})
  set_tests_properties(${name} PROPERTIES TIMEOUT 600)
endfunction()

# attnd_test_main(): makes the library of that name, the main of all tests, unless it is there.
function(attnd_test_main)
  if(TARGET attnd_test_main)
    return()
  endif()
  set(folder ${PROJECT_SOURCE_DIR}/tests/support)
  add_library(attnd_test_main STATIC ${folder}/main.cc ${folder}/watchdog.cc)
  target_link_libraries(attnd_test_main PRIVATE attnd_warnings GTest::gmock)
  # A test takes seconds: up to ten times as long on a busy machine, and with a sanitizer or emulated.
  set(seconds 200)
  if(ATTND_SANITIZE OR CMAKE_CROSSCOMPILING)
    set(seconds 400)
  endif()
  target_compile_definitions(attnd_test_main PRIVATE ATTND_TEST_SECONDS=${seconds})
endfunction()

# attnd_precompiled(HEADERS OPTIMIZE OUT): sets OUT to a target that compiles tests/precompiled/HEADERS.h once for all
# tests compiled with OPTIMIZE. Most of a test's compile time is its headers': gRPC's alone take some seconds.
function(attnd_precompiled headers optimize out)
  set(target attnd_precompiled_${headers}${optimize})
  set(${out} ${target} PARENT_SCOPE)
  if(TARGET ${target})
    return()
  endif()
  set(folder ${PROJECT_SOURCE_DIR}/tests/precompiled)
  add_executable(${target} ${folder}/main.cc) # as the tests are: a library is compiled otherwise
  target_link_libraries(${target} PRIVATE attnd_warnings GTest::gmock)
  if(headers STREQUAL calls)
    target_link_libraries(${target} PRIVATE attnd_proto)
  endif()
  target_compile_options(${target} PRIVATE ${optimize} -pthread $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
                                           # ccache compares a header's contents, not its time stamp
                                           $<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>)
  target_precompile_headers(${target} PRIVATE ${folder}/${headers}.h)
endfunction()
