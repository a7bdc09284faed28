"""Fails if a hot loop of a build of the kernel keeps vectors on the stack for want of registers.

The loops are those that multiply most: in a disassembled object, each stretch of code between a backward jump and its
target that holds no other one and has at least MULTIPLIES multiply-adds. Their accumulators and factors are meant to fit
the registers (kScoreRows and the like in packet.h); a compiler that orders the instructions badly stores some and loads
them again at every step, which no test of results would notice.

usage: spills_test.py OBJDUMP TAG=OBJECT...
       spills_test.py OBJDUMP --self-test COMPILER
"""

import pathlib
import re
import subprocess
import sys
import tempfile

MULTIPLIES = 8
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^ *([0-9a-f]+):\t(\S+)\s*(.*)$")
MULTIPLY = re.compile(r"^v?fn?m(add|sub|la|ls)|^vdpbf16|^bfdot|^v?mulps|^tdpbf16")
JUMP = re.compile(r"^(j[a-z]+|b\.[a-z]+|b|cbn?z|tbn?z)$")
X86_STACK = re.compile(r"\(%rsp[,)]")
X86_VECTOR = re.compile(r"%[xyz]mm")
ARM_STACK = re.compile(r"\[(sp|x29)[,\]]")
ARM_VECTOR = re.compile(r"\b[qdv]\d+")


class Instruction:
    def __init__(self, address: int, name: str, operands: str) -> None:
        self.address, self.name, self.operands = address, name, operands

    def target(self) -> int | None:
        if not JUMP.match(self.name):
            return None
        found = re.search(r"\b([0-9a-f]+) <", self.operands)
        return int(found.group(1), 16) if found else None

    def spills(self) -> bool:
        if X86_STACK.search(self.operands):
            return bool(X86_VECTOR.search(self.operands))
        return bool(ARM_STACK.search(self.operands) and ARM_VECTOR.search(self.operands))


def functions(objdump: str, path: str) -> dict[str, list[Instruction]]:
    command = [objdump, "-d", "--no-show-raw-insn", path]
    found: dict[str, list[Instruction]] = {}
    name = ""
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if header := FUNCTION.match(line):
            name = header.group(1)
            found[name] = []
        elif instruction := INSTRUCTION.match(line):
            address, mnemonic, operands = instruction.groups()
            found[name].append(Instruction(int(address, 16), mnemonic, operands.split("//")[0]))
    return found


def hot_loops(code: list[Instruction]) -> list[list[Instruction]]:
    """The innermost loops of a function that multiply enough."""
    places = {instruction.address: i for i, instruction in enumerate(code)}
    ranges = []
    for i, instruction in enumerate(code):
        target = instruction.target()
        if target is not None and target in places and places[target] <= i:
            ranges.append((places[target], i))
    inner = [one for one in ranges if not any(one != two and one[0] <= two[0] and two[1] <= one[1] for two in ranges)]
    loops = [code[first : last + 1] for first, last in inner]
    return [loop for loop in loops if sum(bool(MULTIPLY.match(x.name)) for x in loop) >= MULTIPLIES]


def check(objdump: str, path: str) -> tuple[int, list[str]]:
    """How many hot loops an object has, and what is wrong with them."""
    count = 0
    found = []
    for name, code in functions(objdump, path).items():
        for loop in hot_loops(code):
            count += 1
            spills = sum(x.spills() for x in loop)
            if spills:
                found.append(f"{path}: {name}: {spills} vectors to or from the stack in the loop at {loop[0].address:x}")
    return count, found


SOURCE = """
typedef float Vector __attribute__((vector_size(16)));
extern "C" void multiply(const float* a, const Vector* b, Vector* c, long n) {
  Vector sum[COUNT];
  for (int i = 0; i < COUNT; ++i) sum[i] = c[i];
  for (long k = 0; k < n; ++k) {
    const Vector factor = b[k];
#pragma GCC unroll 64
    for (int i = 0; i < COUNT; ++i) sum[i] += factor * a[COUNT * k + i];
  }
  for (int i = 0; i < COUNT; ++i) c[i] = sum[i];
}
"""


def self_test(objdump: str, compiler: str) -> list[str]:
    """Sums that fit the registers are clean; more than there are registers are not."""
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        for sums, expected in ((8, False), (48, True)):
            path = str(pathlib.Path(folder) / "x.o")
            command = [compiler, "-O3", f"-DCOUNT={sums}", "-x", "c++", "-c", "-", "-o", path]
            subprocess.run(command, input=SOURCE, text=True, check=True)
            count, found = check(objdump, path)
            if count != 1 or bool(found) != expected:
                wrong.append(f"self-test: {sums} sums: {count} loops, {found}")
    return wrong


def main() -> int:
    objdump, *rest = sys.argv[1:]
    if rest[0] == "--self-test":
        found = self_test(objdump, rest[1])
    else:
        found = []
        for entry in rest:
            path = entry.split("=", 1)[1]
            count, problems = check(objdump, path)
            found += problems if count else [f"{path}: no loop found that multiplies"]
            print(f"{path}: {count} loops")
    print("\n".join(found) or "clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
