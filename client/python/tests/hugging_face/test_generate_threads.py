"""Many generations at once, of several models, at one server."""

from __future__ import annotations

import random
import threading
from typing import Any, Callable

import pytest

import attnd
import attnd.transformers
from conftest import Server
from waits import join_all

from .generating import NEVER, await_no_sessions, generate, make_decoder, sources
from .libraries import torch

THREADS, GENERATIONS = 4, 100
FAMILIES = ("T5", "umT5")


def jobs(seed: int, count: int) -> list[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Each: which model, its inputs, and the settings."""
    choose = random.Random(seed)
    found = []
    for _ in range(count):
        padding = choose.choice(["none", "left", "right", "holes"])
        inputs = sources("T5", choose.randint(1, 4), choose.choice([3, 17, 40, 90]), padding)
        length = choose.randint(1, 10)
        settings = {"num_beams": choose.randint(1, 4), "do_sample": False, "no_repeat_ngram_size": 2}
        found.append((choose.randrange(2), inputs, {**settings, "max_new_tokens": length, "min_new_tokens": length}))
    return found


def run_all(models: list[Any], work: list[Any], others: Callable[[], None] = lambda: None) -> list[Any]:
    """What threads generate that take one after another; others is called by the caller's thread meanwhile."""
    found: list[Any] = [None] * len(work)
    failures: list[BaseException] = []
    waiting = iter(range(len(work)))
    lock, start = threading.Lock(), threading.Barrier(THREADS)

    def take() -> None:
        torch.set_num_threads(1)
        try:
            start.wait()
            while not failures:
                with lock:
                    at = next(waiting, None)
                if at is None:
                    return
                which, inputs, settings = work[at]
                found[at] = models[which].generate(**inputs, **settings)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=take) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    others()
    join_all(threads)
    if failures:
        raise failures[0]
    return found


def check_all(found: list[Any], expected: list[Any]) -> None:
    wrong = [at for at, (one, other) in enumerate(zip(found, expected)) if not torch.equal(one, other)]
    assert wrong == []


def test_a_hundred_generations_on_four_threads(make_server: Callable[..., Server]) -> None:
    server = make_server("--shared_memory", "--threads=2")
    models, work = [make_decoder(family) for family in FAMILIES], jobs(1, GENERATIONS)
    expected = [generate(models[which], inputs, **settings) for which, inputs, settings in work]
    most = 0

    def look() -> None:
        nonlocal most
        for _ in range(50):
            most = max(most, len(client.list_sessions()))
            threading.Event().wait(0.02)

    with attnd.Client(server.unix) as client:
        handles = [
            attnd.transformers.attach(model, target, min_length=20, min_cached_tokens=20)
            for model, target in zip(models, (server.unix, server.unix))
        ]
        check_all(run_all(models, work, look), expected)
        assert most > 2
        await_no_sessions(client)
        for handle in handles:
            handle.detach()
        await_no_sessions(client)
    check_all(run_all(models, work[:8]), expected[:8])


@pytest.mark.parametrize(("doors", "tokens"), [(("unix", "tcp"), 0), (("tcp", "tcp"), NEVER)])
def test_doors_and_thresholds(server: Server, tokens: int, doors: tuple[str, str]) -> None:
    models, work = [make_decoder(family) for family in FAMILIES], jobs(2, 16)
    expected = [generate(models[which], inputs, **settings) for which, inputs, settings in work]
    handles = [
        attnd.transformers.attach(model, getattr(server, door), min_length=0, min_cached_tokens=tokens)
        for model, door in zip(models, doors)
    ]
    check_all(run_all(models, work), expected)
    for handle in handles:
        handle.detach()


def test_restarts_in_the_midst_of_them(make_server: Callable[..., Server]) -> None:
    server = make_server("--shared_memory", "--threads=2")
    models, work = [make_decoder(family) for family in FAMILIES], jobs(3, 32)
    expected = [generate(models[which], inputs, **settings) for which, inputs, settings in work]
    options: dict[str, Any] = {"min_length": 0, "min_cached_tokens": 10, "replay_bytes": 1 << 26}
    handles = [attnd.transformers.attach(model, server.unix, **options) for model in models]

    def restart() -> None:
        for _ in range(4):
            threading.Event().wait(0.7)
            server.restart()

    check_all(run_all(models, work, restart), expected)
    with attnd.Client(server.unix) as client:
        await_no_sessions(client)
    for handle in handles:
        handle.detach()


def test_one_model_on_four_threads(server: Server) -> None:
    """Each has sessions of its own."""
    model, work = make_decoder("T5"), [(0, inputs, settings) for _, inputs, settings in jobs(4, 16)]
    expected = [generate(model, inputs, **settings) for _, inputs, settings in work]
    with attnd.transformers.attach(model, server.unix, min_length=0, min_cached_tokens=15):
        check_all(run_all([model], work), expected)
    with attnd.Client(server.unix) as client:
        await_no_sessions(client)
