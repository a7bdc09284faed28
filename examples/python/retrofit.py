"""Shows what it takes to add a bias to an attention layer that was trained without one.

A small language model with one attention layer is trained on sequences of 64 tokens in which the next token often
repeats the one three places back. It has no information about positions, so it can learn how often tokens occur but not
where. Then T5's buckets are added, starting from zeros. Training is numpy in float64; the printed results are computed
by attnd, whose address is in ATTND_SERVER.

    python3 examples/python/retrofit.py           parameters, and losses at three lengths; half a minute
    python3 examples/python/retrofit.py --time    what a bias adds to the time of a call
"""

import sys
import time

import numpy as np

import attnd

TOKENS, TOPIC, BACK, LENGTH = 16, 6, 3, 64
LENGTHS = (LENGTH, 4 * LENGTH, 16 * LENGTH)
HEADS, DIM, BUCKETS, STEPS = 2, 16, 32, 200
random = np.random.RandomState(0)  # its stream is the same in all versions of numpy


def sequences(count, length):
    """Random sequences: each draws its tokens from a topic of TOPIC tokens, and half of its tokens repeat the one BACK
    places before."""
    topics = np.array([random.permutation(TOKENS)[:TOPIC] for _ in range(count)])
    drawn = topics[np.arange(count)[:, None], random.randint(TOPIC, size=(count, length + 1))]
    repeated = random.rand(count, length + 1) < 0.5
    for t in range(BACK, length + 1):
        drawn[:, t] = np.where(repeated[:, t], drawn[:, t - BACK], drawn[:, t])
    return drawn


def split(x):
    return x.reshape(*x.shape[:2], HEADS, DIM).transpose(0, 2, 1, 3)


def joined(x):
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], HEADS * DIM)


def loss_of(logits, target):
    shifted = logits - logits.max(-1, keepdims=True)
    return (np.log(np.exp(shifted).sum(-1)) - np.take_along_axis(shifted, target[..., None], -1)[..., 0]).mean()


def gradients(w, tokens, buckets):
    """The gradients of the mean loss, by parameter; backpropagation by hand."""
    x, target = w["embed"][tokens[:, :-1]], tokens[:, 1:]
    q, k, v = (split(x @ w[name]) for name in "qkv")
    logits = q @ k.swapaxes(-1, -2) + w["u"][buckets].transpose(2, 0, 1)
    logits = np.where(np.tri(x.shape[1], dtype=bool), logits, -np.inf)
    a = np.exp(logits - logits.max(-1, keepdims=True))
    a /= a.sum(-1, keepdims=True)
    o = joined(a @ v)
    y = x + o @ w["o"]
    p = np.exp((z := y @ w["out"]) - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dz = (p - np.eye(TOKENS)[target]) / target.size
    dy = dz @ w["out"].T
    do = split(dy @ w["o"].T)
    da = do @ v.swapaxes(-1, -2)
    ds = a * (da - (da * a).sum(-1, keepdims=True))
    d = {"q": joined(ds @ k), "k": joined(ds.swapaxes(-1, -2) @ q), "v": joined(a.swapaxes(-1, -2) @ do)}
    dx = dy + sum(d[name] @ w[name].T for name in "qkv")
    g = {name: product(x, d[name]) for name in "qkv"}
    g["o"], g["out"], g["embed"] = product(o, dy), product(y, dz), product(np.eye(TOKENS)[tokens[:, :-1]], dx)
    g["u"] = product(np.eye(BUCKETS)[buckets], ds.sum(0).transpose(1, 2, 0))
    return g


def product(a, b):
    """a transposed times b, summed over all axes but the last."""
    return a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])


def train(w, names, buckets=None):
    """Trains the named parameters with Adam; the others do not change. Without buckets all offsets share one bucket,
    which changes no attention weight."""
    buckets = np.zeros((LENGTH, LENGTH), int) if buckets is None else buckets
    w = {name: value.copy() for name, value in w.items()}
    moments = {name: (np.zeros_like(w[name]), np.zeros_like(w[name])) for name in names}
    for step in range(1, STEPS + 1):
        g = gradients(w, sequences(16, LENGTH), buckets)
        for name in names:
            m, s = moments[name]
            m += 0.1 * (g[name] - m)
            s += 0.001 * (g[name] ** 2 - s)
            rate = 0.03 if name == "u" else 0.003
            w[name] -= rate * (m / (1 - 0.9**step)) / (np.sqrt(s / (1 - 0.999**step)) + 1e-8)
    return w


def computed(client, w, tokens, model):
    """The logits of the next token, with attention by attnd."""
    x = w["embed"][tokens[:, :-1]]
    q, k, v = (np.ascontiguousarray(split(x @ w[name]), np.float32) for name in "qkv")
    return (x + joined(client.attend(q, k, v, model, mask="causal")) @ w["o"]) @ w["out"]


def buckets_of(max_distance):
    """The buckets [queries, keys] at the trained length."""
    rule = attnd.compare_bias([f"t5:{BUCKETS},{max_distance}"], max_offset=LENGTH).sources[0]
    return rule.buckets[np.maximum(np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH)), 0)]


def experiment(client):
    width = HEADS * DIM
    w = {name: random.normal(size=(width, width)) / width**0.5 for name in "qkvo"}
    w["embed"], w["out"] = random.normal(size=(TOKENS, width)), random.normal(size=(width, TOKENS)) / width**0.5
    w["u"] = np.zeros((BUCKETS, HEADS))
    weights = [name for name in w if name != "u"]
    first = train(w, weights)
    variants = [  # name, parameters, max distance; None: no bias
        ("no bias", first, None),
        ("no bias, weights trained on", train(first, weights), None),
        ("buckets of zeros", first, 128),
        ("buckets trained, max distance 128", train(first, ["u"], buckets_of(128)), 128),
        ("buckets trained, max distance 32", train(first, ["u"], buckets_of(32)), 32),
        ("and weights too, max distance 32", train(first, list(w), buckets_of(32)), 32),
    ]
    print(f"parameters: {sum(first[name].size for name in weights)} weights, {w['u'].size} of the bias")
    print("loss at a length of".ljust(34) + "".join(f"{length:8}" for length in LENGTHS))
    tests = [sequences(count, length) for count, length in zip((64, 16, 4), LENGTHS)]
    for name, held, max_distance in variants:
        if max_distance is not None:
            table = attnd.Table(attnd.T5Buckets(BUCKETS, max_distance, held["u"]))
            client.upload_table("retrofit", table, replace=True)
        model = "retrofit" if max_distance is not None else None
        logits = [computed(client, held, tokens, model) for tokens in tests]
        print(name.ljust(34) + "".join(f"{loss_of(z, t[:, 1:]):8.2f}" for z, t in zip(logits, tests)))
        if not held["u"].any() and model is not None:
            same = all(np.array_equal(z, computed(client, held, t, None)) for z, t in zip(logits, tests))
            print("  the same bits as without a bias" if same else "  not the same bits as without a bias")
    client.unload_model("retrofit")
    for name, held, max_distance in variants[3:5]:
        seen = int(buckets_of(max_distance).max())
        best = " and ".join(map(str, held["u"].argmax(0)))
        print(f"{name}: the heads' largest are buckets {best}; {BUCKETS - 1 - seen} were never trained")


def timed(client):
    """Times whole calls with and without a bias, alternating: 8 heads, 2048 queries and keys of 64; the fastest of 20
    each."""
    q, k, v = random.normal(size=(3, 1, 8, 2048, 64)).astype(np.float32)
    rounds = []
    for _ in range(20):
        times = [time.perf_counter()]
        for model in (None, "t5-tiny"):
            client.attend(q, k, v, model, mask="causal")
            times.append(time.perf_counter())
        rounds.append(np.diff(times) * 1e3)
    without, with_one = np.min(rounds, axis=0)
    print(f"without a bias {without:.1f} ms a call, with one {with_one:.1f} ms")


if __name__ == "__main__":
    with attnd.Client() as connected:
        (timed if "--time" in sys.argv[1:] else experiment)(connected)
