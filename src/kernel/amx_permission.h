// Whether AMX may be used: the CPU has it, and Linux has let this process have its registers.
#pragma once

namespace attnd::kernel {

// True if the CPU multiplies bf16 tiles (AMX-TILE and AMX-BF16), the system saves their registers, and it has granted
// them to this process: Linux does so for all its threads at the first call (arch_prctl, ARCH_REQ_XCOMP_PERM), unless
// it is older than 5.16 or a signal stack of the process is too small. Thread-safe.
bool RequestAmx();

}  // namespace attnd::kernel
