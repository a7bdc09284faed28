// The platform this code is compiled for. Each macro is always defined, as 0 or 1, and is used with #if.
//
// An #ifdef on a macro of the compiler or of libc is silently false if the header that defines it was not included.
// With -Werror=undef (CMakeLists.txt), an #if on a macro of this file does not compile unless this file is included.
// tests/checks/platform_switches.py refuses #ifdef, #ifndef and defined() everywhere else.
#pragma once

// The operating system and the architecture.

#ifdef __linux__
#define ATTND_LINUX 1
#else
#define ATTND_LINUX 0
#endif

#ifdef __x86_64__
#define ATTND_X86_64 1
#else
#define ATTND_X86_64 0
#endif

#ifdef __aarch64__
#define ATTND_AARCH64 1
#else
#define ATTND_AARCH64 0
#endif

#ifdef __clang__
#define ATTND_CLANG 1
#else
#define ATTND_CLANG 0
#endif

// Newer gRPC and protobuf log through an Abseil that has this header; older ones log through functions of their own.
#if __has_include("absl/log/log_sink_registry.h")
#define ATTND_ABSL_LOG 1
#else
#define ATTND_ABSL_LOG 0
#endif

// The instruction sets that this translation unit may use without a check of the CPU at run time.

#ifdef __AVX2__
#define ATTND_AVX2 1
#else
#define ATTND_AVX2 0
#endif

#ifdef __F16C__
#define ATTND_F16C 1
#else
#define ATTND_F16C 0
#endif

#ifdef __AVX512F__
#define ATTND_AVX512F 1
#else
#define ATTND_AVX512F 0
#endif

#ifdef __AVX512DQ__
#define ATTND_AVX512DQ 1
#else
#define ATTND_AVX512DQ 0
#endif

#ifdef __AVX512BF16__
#define ATTND_AVX512BF16 1
#else
#define ATTND_AVX512BF16 0
#endif

#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
#define ATTND_NEON_BF16 1
#else
#define ATTND_NEON_BF16 0
#endif

// AMX instructions, or their emulation in tests (tests/kernel/amx_emulated.h), which the compiler's command line
// selects.
#ifndef ATTND_AMX_EMULATED
#define ATTND_AMX_EMULATED 0
#endif

#ifdef __AMX_BF16__
#define ATTND_AMX_BF16 1
#else
#define ATTND_AMX_BF16 ATTND_AMX_EMULATED
#endif
