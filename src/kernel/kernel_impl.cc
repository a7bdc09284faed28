// One build of the kernel. CMake compiles this file once per instruction set, each time with a different
// ATTND_KERNEL_TAG (the namespace), ATTND_KERNEL_NAME and name for Eigen's namespace (cmake/AttndIsa.cmake).
#include "kernel/impl/merge.h"
#include "platform/platform.h"

#if ATTND_AMX_BF16
#include "kernel/impl/amx.h"
#define ATTND_ADVANCE AdvanceByAmx
#else
#define ATTND_ADVANCE Advance
#endif

namespace attnd::kernel::ATTND_KERNEL_TAG {

extern const Kernel kKernel;

const Kernel kKernel = {
    .name = ATTND_KERNEL_NAME,
    .query_tile = kQueryTile,
    .key_block = kKeyTile,
    .direct_rows = kDirectRows,
    .packed_key_bytes = PackedKeyBytes,
    .packed_value_bytes = PackedValueBytes,
    .state_bytes = StateBytes,
    .scratch_bytes = ScratchBytes,
    .direct_scratch_bytes = DirectScratchBytes,
    .pack_keys = PackKeys,
    .pack_values = PackValues,
    .values_in_place = ValuesInPlace,
    .begin = Begin,
    .advance = ATTND_ADVANCE,
    .finish = Finish,
    .save = Save,
    .direct = Direct,
    .merge = Merge,
    .clear = Clear,
};

}  // namespace attnd::kernel::ATTND_KERNEL_TAG
