// Whether AMX may be used: the CPU has it, and Linux lets this process use its registers.
#pragma once

namespace attnd::kernel {

// True if the CPU multiplies bf16 tiles (AMX-TILE and AMX-BF16), the system saves the tile registers, and it grants
// them to this process. Linux grants them to all threads of the process at the first call (arch_prctl,
// ARCH_REQ_XCOMP_PERM), unless Linux is older than 5.16 or a signal stack of the process is too small. Thread-safe.
bool RequestAmx();

}  // namespace attnd::kernel
