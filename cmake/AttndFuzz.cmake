# attnd_fuzz(NAME SOURCES files... DEPS targets... CORPUS dir)
#
# A program around LLVMFuzzerTestOneInput. With ATTND_FUZZ (clang) it is a libFuzzer target, to be run by hand;
# otherwise it is an ordinary test that runs on every file of its corpus.
function(attnd_fuzz name)
  cmake_parse_arguments(F "" "CORPUS" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${F_SOURCES})
  target_link_libraries(${name} PRIVATE attnd_warnings ${F_DEPS})
  if(ATTND_FUZZ)
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.cc)
    add_test(NAME ${name} COMMAND ${name} ${F_CORPUS})
    set_tests_properties(${name} PROPERTIES TIMEOUT 600)
  endif()
endfunction()
