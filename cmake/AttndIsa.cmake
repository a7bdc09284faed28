# Code that is compiled once per instruction set: the kernel, and the benchmark's loops. This is the only list of
# instruction sets and their flags; src/kernel/builds.inc names the same builds in C++ and tells which CPUs can run
# each.
#
# Each build has its own namespace, and its own name for Eigen's, so that the linker cannot substitute code of one build
# for another's; tests/kernel/symbols_test.py checks that for the objects of attnd_isa_builds. Always optimised: without
# optimisation, the arithmetic is too slow to use and inline functions leave symbols.
include_guard(GLOBAL)

# Declares an instruction set and the compiler flags that select it.
function(attnd_isa name)
  set_property(GLOBAL APPEND PROPERTY ATTND_ISAS ${name})
  set_property(GLOBAL PROPERTY ATTND_ISA_FLAGS_${name} ${ARGN})
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  attnd_isa(x86-64-v2 -march=x86-64-v2)
  attnd_isa(x86-64-v3 -march=x86-64-v3)
  attnd_isa(x86-64-v4 -march=x86-64-v4)
  attnd_isa(x86-64-v4-bf16 -march=x86-64-v4 -mavx512bf16)
  attnd_isa(x86-64-v4-amx -march=x86-64-v4 -mavx512bf16 -mamx-tile -mamx-bf16)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  # GCC 12's first scheduling pass moves all loads of a step to its beginning, for which there are not enough registers.
  set(no_spills "$<$<CXX_COMPILER_ID:GNU>:-fno-schedule-insns>")
  attnd_isa(aarch64-bf16 -march=armv8.2-a+bf16 ${no_spills})
  attnd_isa(aarch64 ${no_spills})
else()
  message(FATAL_ERROR "attnd has kernels for x86-64 and aarch64, not for ${CMAKE_SYSTEM_PROCESSOR}")
endif()

# attnd_isa_build(PREFIX NAME ISA SOURCE flags...)
#
# Compiles SOURCE as an object library PREFIX_TAG for one instruction set, with additional flags; TAG is NAME as an
# identifier. Defines ATTND_KERNEL_TAG (the namespace) as isa_TAG, and ATTND_KERNEL_NAME as NAME in quotes.
function(attnd_isa_build prefix name isa source)
  string(REGEX REPLACE "[^a-z0-9]" "_" tag ${name})
  set(target ${prefix}_${tag})
  get_property(isa_flags GLOBAL PROPERTY ATTND_ISA_FLAGS_${isa})
  add_library(${target} OBJECT ${source})
  target_compile_options(${target} PRIVATE ${isa_flags} ${ARGN} -O3 -fno-exceptions -fno-rtti)
  target_compile_definitions(${target} PRIVATE ATTND_KERNEL_TAG=isa_${tag} ATTND_KERNEL_NAME="${name}"
                             Eigen=Eigen_${tag} EIGEN_NO_DEBUG EIGEN_DONT_PARALLELIZE)
  # Triggered by Eigen's packets as template arguments, and by GCC's own AVX-512 headers.
  target_compile_options(${target} PRIVATE -Wno-ignored-attributes
                         "$<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized;-Wno-maybe-uninitialized>")
  target_link_libraries(${target} PRIVATE attnd_warnings Eigen3::Eigen attnd_platform attnd_tensor)
  target_include_directories(${target} PRIVATE ${PROJECT_BINARY_DIR}/rooms/kernel)
endfunction()

# attnd_isa_builds(PREFIX SOURCE OBJECTS)
#
# Calls attnd_isa_build for every instruction set. Sets OBJECTS to the object files, and appends TAG=OBJECT for each to
# the global property ATTND_ISA_OBJECTS.
function(attnd_isa_builds prefix source objects)
  set(files)
  get_property(isas GLOBAL PROPERTY ATTND_ISAS)
  foreach(isa ${isas})
    attnd_isa_build(${prefix} ${isa} ${isa} ${source})
    string(REGEX REPLACE "[^a-z0-9]" "_" tag ${isa})
    list(APPEND files $<TARGET_OBJECTS:${prefix}_${tag}>)
    set_property(GLOBAL APPEND PROPERTY ATTND_ISA_OBJECTS ${tag}=$<TARGET_OBJECTS:${prefix}_${tag}>)
  endforeach()
  set(${objects} ${files} PARENT_SCOPE)
endfunction()
