"""Fails if a build of the kernel defines code that the linker could confuse with another's.

Inline functions and template instances are weak symbols: of two of one name the linker keeps one, and then code for one
instruction set runs where another was meant. So every code symbol that an object defines and others can see must carry
that object's own namespace in its name, and an object may ask for none but these of libc and libm.

usage: symbols_test.py NM TAG=OBJECT...
       symbols_test.py NM --self-test COMPILER
"""

import pathlib
import re
import subprocess
import sys
import tempfile

MAY_NEED = re.compile(r"^(_GLOBAL_OFFSET_TABLE_|log|memcpy|memset|__stack_chk_fail|__gcov_.*|__[atu][bs]?[a-z]*san_.*)$")


def problems(nm: str, tag: str, path: str) -> list[str]:
    own = [f"{len(name)}{name}" for name in (f"isa_{tag}", f"Eigen_{tag}")]
    found = []
    for line in subprocess.run([nm, path], capture_output=True, text=True, check=True).stdout.splitlines():
        kind, name = line.split()[-2:]
        if kind in "TWi" and not any(piece in name for piece in own):
            found.append(f"{path}: defines {name}, which others may define too")
        if kind in "Uvw" and not MAY_NEED.match(name) and not any(piece in name for piece in own):
            found.append(f"{path}: needs {name}")
    return found


def self_test(nm: str, compiler: str) -> list[str]:
    """The check finds a shared template instance and a call to the C++ library, and passes a clean object."""
    clean = "namespace isa_x { float f(float x) { return x; } }"
    weak = "template <class T> __attribute__((noinline)) T g(T x) { return x; } namespace isa_x { float f(float x) { return g(x); } }"
    needs = "float h(float); namespace isa_x { float f(float x) { return h(x); } }"
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for source, expected in ((clean, 0), (weak, 1), (needs, 1)):
            object_file = str(pathlib.Path(folder) / "x.o")
            subprocess.run([compiler, "-x", "c++", "-c", "-", "-o", object_file], input=source, text=True, check=True)
            found = problems(nm, "x", object_file)
            if len(found) != expected:
                wrong.append(f"self-test: expected {expected} findings, got {found}, in: {source}")
    return wrong


def main() -> int:
    nm, *rest = sys.argv[1:]
    if rest[0] == "--self-test":
        found = self_test(nm, rest[1])
    else:
        found = [problem for entry in rest for problem in problems(nm, *entry.split("=", 1))]
    print("\n".join(found) or "clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
