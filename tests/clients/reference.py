"""The input of tests/clients/run.sh and what must come out, computed in float64 from T5's definition.

reference.py make INPUT REFERENCE       q, k and v as raw float32 [8, 2048, 64] each; the output as .npz
reference.py check REFERENCE OUTPUT     fails unless OUTPUT, raw float32, is the output
reference.py refuses REFERENCE OUTPUT   fails unless `check` notices that numbers of OUTPUT are in the wrong place
"""

import pathlib
import sys

import numpy as np

HEADS, LENGTH, DIM = 8, 2048, 64
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench/peers"))
import t5_bias  # noqa: E402


def make(source: str, target: str) -> None:
    q, k, v = tensors = np.random.default_rng(2048).standard_normal((3, HEADS, LENGTH, DIM), dtype=np.float32)
    tensors.astype("<f4").tofile(source)
    table = np.load(ROOT / "tests/golden/embedded/t5-tiny.decoder.npy").astype(np.float64)
    bias = t5_bias.causal_mask_view(t5_bias.by_offset(table, LENGTH), LENGTH, LENGTH)
    output = np.empty((HEADS, LENGTH, DIM))
    for head in range(HEADS):
        logits = q[head].astype(np.float64) @ k[head].T.astype(np.float64) + bias[head]
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        output[head] = weights @ v[head].astype(np.float64) / weights.sum(axis=1, keepdims=True)
    # An error of x in a logit changes a weight by a factor of e^x, and each logit is a sum of DIM products.
    norms = np.linalg.norm(q, axis=2).max() * np.linalg.norm(k, axis=2).max()
    bound = 2 * (DIM + 2) * np.finfo(np.float32).eps * norms * np.abs(v).max()
    with open(target, "wb") as file:
        np.savez(file, output=output, bound=bound)


def check(reference: str, output: np.ndarray) -> str:
    """What is wrong with the output, or nothing."""
    expected = np.load(reference)
    if output.size != expected["output"].size:
        return f"expected {expected['output'].size} values, got {output.size}"
    error = np.abs(output.reshape(HEADS, LENGTH, DIM) - expected["output"])
    # Not "error > bound", which a NaN would pass.
    if not error.max() <= expected["bound"]:
        worst = [int(i) for i in np.unravel_index(error.argmax(), error.shape)]
        bound = f"{expected['bound']:.1e}"
        return f"expected each value within {bound}, got one off by {error.max():.1e} at [head, row, element] {worst}"
    print(f"within {error.max():.1e} of float64 (allowed: {expected['bound']:.1e})")
    return ""


def refuses(reference: str, output: np.ndarray) -> str:
    tensor = output.reshape(HEADS, LENGTH, DIM)
    wrong = {
        "sequence before heads": np.ascontiguousarray(tensor.transpose(1, 0, 2)),
        "heads in another order": tensor[::-1],
        "rows moved by one": np.roll(tensor, 1, axis=1),
        "big-endian": tensor.astype(">f4").view("<f4"),
        "zeros": np.zeros_like(tensor),
        "NaN": np.full_like(tensor, np.nan),
        "one value missing": output[:-1],
    }
    missed = [name for name, values in wrong.items() if not check(reference, values.reshape(-1))]
    return f"the check does not notice: {', '.join(missed)}" if missed else ""


def main() -> None:
    if len(sys.argv) != 4 or sys.argv[1] not in ("make", "check", "refuses"):
        sys.exit(__doc__)
    command, first, second = sys.argv[1:]
    if command == "make":
        make(first, second)
    else:
        sys.exit({"check": check, "refuses": refuses}[command](first, np.fromfile(second, "<f4")) or None)


if __name__ == "__main__":
    main()
