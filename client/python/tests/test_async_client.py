"""The asyncio client: the same results and errors as the blocking one, cancellation, many tasks."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import time
import typing
from typing import Any

import pytest

import attnd
from conftest import Server
from fake_server import COMPUTE, FakeServer, fake  # noqa: F401
from inputs import same_bits, tensors
from waits import until


def test_twins() -> None:
    """Both clients have the same methods with the same signatures."""
    names = {name for name in vars(attnd.Client) if not name.startswith("_")}
    assert names == {name for name in vars(attnd.AsyncClient) if not name.startswith("_")}
    for name in names:
        blocking, awaiting = getattr(attnd.Client, name), getattr(attnd.AsyncClient, name)
        assert inspect.signature(blocking).parameters == inspect.signature(awaiting).parameters
        assert next(iter(inspect.signature(blocking).parameters)) == "self"
        hints, others = typing.get_type_hints(blocking), typing.get_type_hints(awaiting)
        if name == "session":  # whose twin it gives
            assert (hints["return"], others["return"]) == (attnd.Session, attnd.AsyncSession)
            others["return"] = hints["return"]
        assert hints == others
        assert set(hints) == set(inspect.signature(blocking).parameters) - {"self"} | {"return"}
        assert inspect.iscoroutinefunction(awaiting)
        assert not inspect.iscoroutinefunction(blocking)
        assert inspect.getdoc(awaiting)
    assert inspect.signature(attnd.Client) == inspect.signature(attnd.AsyncClient)


def test_the_same_results(server: Server) -> None:
    async def ask() -> None:
        with attnd.Client(server.tcp) as blocking:
            async with attnd.AsyncClient(server.tcp) as client:
                for sizes in ({}, {"queries": 1100}, {"batch": 2, "queries": 700}):
                    arrays = tensors(**sizes)
                    output, lse = await client.attend(*arrays, "t5-tiny", return_log_sum_exp=True)
                    expected = blocking.attend(*arrays, "t5-tiny", return_log_sum_exp=True)
                    assert same_bits(output, expected[0])
                    assert same_bits(lse, expected[1])
                assert (await client.bias("book")).text() == blocking.bias("book").text()
                assert (await client.server_info()).version == blocking.server_info().version
                assert await client.health() is attnd.ServingStatus.SERVING
                requests = [attnd.ComputeRequest(*tensors(seed=i), "t5-tiny") for i in range(20)]
                for ours, theirs in zip(await client.attend_many(requests), blocking.attend_many(requests)):
                    assert same_bits(ours, theirs)

    asyncio.run(ask())


def test_errors(server: Server) -> None:
    async def ask() -> None:
        async with attnd.AsyncClient(server.tcp) as client:
            with pytest.raises(attnd.NotFound) as caught:
                await client.attend(*tensors(), "nobody")
            assert caught.value.field == "model"
            with pytest.raises(attnd.InvalidArgument):
                await client.attend([1], [1], [1], "t5-tiny")
            good, bad = (attnd.ComputeRequest(*tensors(), name) for name in ("t5-tiny", "nobody"))
            results = await client.attend_many([good, bad, good], return_errors=True)
            assert [type(result).__name__ for result in results] == ["ndarray", "NotFound", "ndarray"]
            with pytest.raises(attnd.NotFound):
                await client.attend_many([good, bad, good])

    asyncio.run(ask())


def test_1000_tasks(server: Server) -> None:
    q, k, v = tensors()

    async def ask() -> None:
        async with attnd.AsyncClient(server.tcp) as client:
            expected = await client.attend(q, k, v, "t5-tiny")
            calls = [client.attend(q, k, v, "t5-tiny" if i % 10 else "nobody") for i in range(1000)]
            results = await asyncio.gather(*calls, return_exceptions=True)
        for i, result in enumerate(results):
            assert same_bits(result, expected) if i % 10 else isinstance(result, attnd.NotFound)

    asyncio.run(ask())


@pytest.mark.parametrize("queries", [16, 1200])
def test_cancelling_a_task_cancels_the_call(fake: FakeServer, queries: int) -> None:  # noqa: F811
    fake.handlers[COMPUTE] = fake.hang

    async def ask() -> None:
        async with attnd.AsyncClient(fake.target) as client:
            task = asyncio.ensure_future(client.attend(*tensors(queries=queries), "m"))
            await until(lambda: COMPUTE in fake.calls)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.get_running_loop().run_in_executor(None, fake.cancelled.wait, 30)
            assert (await client.server_info()).version == "fake"

    asyncio.run(ask())
    assert fake.calls.count(COMPUTE) <= 8  # and nothing is sent again


def test_a_deadline(fake: FakeServer) -> None:  # noqa: F811
    fake.handlers[COMPUTE] = fake.hang

    async def ask() -> None:
        async with attnd.AsyncClient(fake.target, timeout=0.3) as client:
            for queries in (16, 1200):
                with pytest.raises(attnd.DeadlineExceeded):
                    await client.attend(*tensors(queries=queries), "m")

    asyncio.run(ask())


def test_closing(fake: FakeServer) -> None:  # noqa: F811
    fake.handlers[COMPUTE] = fake.hang

    async def ask() -> None:
        client = attnd.AsyncClient(fake.target)
        task = asyncio.ensure_future(client.attend(*tensors(), "m"))
        await until(lambda: COMPUTE in fake.calls)
        await client.close()
        with pytest.raises(attnd.Cancelled):
            await asyncio.wait_for(task, 10)
        await client.close()
        with pytest.raises(attnd.FailedPrecondition):
            await client.server_info()
        unused = attnd.AsyncClient(fake.target)
        await unused.close()

    asyncio.run(ask())


def test_closing_while_a_call_waits_for_a_server() -> None:
    server = FakeServer()

    async def ask() -> None:
        client = attnd.AsyncClient(server.target)
        await client.server_info()
        await asyncio.get_running_loop().run_in_executor(None, server.stop)
        task = asyncio.ensure_future(client.server_info())
        await asyncio.sleep(0.4)
        await client.close()
        with pytest.raises((attnd.Unavailable, attnd.FailedPrecondition, attnd.Cancelled)):
            await asyncio.wait_for(task, 5)

    asyncio.run(ask())


def test_another_event_loop(server: Server) -> None:
    client = attnd.AsyncClient(server.tcp)
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(client.health()) is attnd.ServingStatus.SERVING
        with pytest.raises(attnd.FailedPrecondition) as caught:
            asyncio.run(client.health())
        assert caught.value.field == "event loop"
        loop.run_until_complete(client.close())
    finally:
        loop.close()


def test_calls_run_beside_each_other(fake: FakeServer) -> None:  # noqa: F811
    from fake_server import answer_compute

    def slow(request: bytes, context: Any) -> bytes:
        time.sleep(0.3)
        return answer_compute(request, context)

    fake.handlers[COMPUTE] = slow

    async def ask() -> float:
        async with attnd.AsyncClient(fake.target) as client:
            start = time.monotonic()
            await asyncio.gather(*(client.attend(*tensors(), "m") for _ in range(8)))
            return time.monotonic() - start

    assert asyncio.run(ask()) < 1.5


CLOSED_UNDER_LOAD = """
import asyncio, sys
import numpy as np
import attnd

async def main():
    x = np.ones((1, 1, 1, 8), np.float32)
    client = attnd.AsyncClient(sys.argv[1], retry=None)
    await client.server_info()
    tasks = [asyncio.ensure_future(client.attend(x, x, x, "m")) for _ in range(600)]
    await asyncio.sleep(0.5)
    if sys.argv[2] == "cancelled":
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
    await client.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, (attnd.Cancelled, asyncio.CancelledError)) for outcome in outcomes)

asyncio.run(main())
print("ended")
"""


@pytest.mark.parametrize("way", ["closed", "cancelled"])
def test_closing_with_more_calls_than_grpcio_can_note(fake: FakeServer, way: str) -> None:  # noqa: F811
    """A thread of grpcio blocks if the loop does not read some hundred completions, and the process then never ends."""
    fake.handlers[COMPUTE] = fake.hang
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_UNDER_LOAD, fake.target, way],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.stdout == "ended\n", done.stderr
