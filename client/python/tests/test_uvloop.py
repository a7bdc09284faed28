"""AsyncClient in uvloop's event loop."""

from __future__ import annotations

import asyncio
from typing import Any, Coroutine

import pytest

import attnd
from conftest import Server
from inputs import same_bits, tensors

uvloop: Any = pytest.importorskip("uvloop")

# The target, and the client's options, of each way.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "local": ("unix", {}),
    "shared_memory": ("unix", {"local_calls": False}),
    "grpc": ("tcp", {}),
}
ways = pytest.mark.parametrize("way", WAYS)


def run(main: Coroutine[Any, Any, None]) -> None:
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(main, 120))
    finally:
        loop.close()


@ways
def test_calls(server: Server, way: str) -> None:
    target, options = WAYS[way]
    calls = [tensors(queries=1 + n * 37 % 300, seed=n) for n in range(40)]
    with attnd.Client(server.tcp) as plain:
        expected = [plain.attend(*call, "t5-tiny") for call in calls]

    async def main() -> None:
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        async with attnd.AsyncClient(getattr(server, target), **options) as client:
            reply = await client.compute(attnd.ComputeRequest(*tensors(queries=300), "t5-tiny"))
            assert reply.transport == way
            found = await asyncio.gather(*(client.attend(*call, "t5-tiny") for call in calls))
            many = await client.attend_many([attnd.ComputeRequest(*call, "t5-tiny") for call in calls])
            with pytest.raises(attnd.NotFound):
                await client.attend(*calls[0], "nobody")
        for results in (found, many):
            assert all(same_bits(ours, theirs) for ours, theirs in zip(results, expected))

    run(main())


@ways
def test_cancelling_a_task(server: Server, way: str) -> None:
    target, options = WAYS[way]

    async def main() -> None:
        async with attnd.AsyncClient(getattr(server, target), **options) as client:
            q = client.empty((1, 8, 12000, 64))
            await client.attend(*tensors(), "t5-tiny")
            task = asyncio.ensure_future(client.attend(q, q, q, "t5-tiny"))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.attend(*tensors(), "t5-tiny")).shape == (1, 8, 16, 64)

    run(main())


@ways
def test_a_server_that_is_gone(make_server: Any, way: str) -> None:
    target, options = WAYS[way]
    server = make_server()

    async def main() -> None:
        async with attnd.AsyncClient(getattr(server, target), timeout=5, **options) as client:
            await client.attend(*tensors(), "t5-tiny")
            server.kill()
            with pytest.raises((attnd.Unavailable, attnd.DeadlineExceeded)):
                await client.attend(*tensors(), "t5-tiny", timeout=0.5)

    run(main())


def test_a_session(server: Server) -> None:
    layers = [attnd.SelfLayer(8, 64)]
    steps = [tensors(queries=n, keys=n, seed=n) for n in (1, 200, 1)]
    with attnd.Client(server.tcp) as plain, plain.session(layers, "t5-tiny", max_tokens=300) as session:
        expected = [session.attend(0, *step) for step in steps]

    async def main() -> None:
        async with attnd.AsyncClient(server.unix) as client:
            async with await client.session(layers, "t5-tiny", max_tokens=300) as session:
                assert session.transport == "local"
                for step, output in zip(steps, expected):
                    assert same_bits(await session.attend(0, *step), output)
            task = asyncio.ensure_future(lost(client))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def lost(client: attnd.AsyncClient) -> None:
        session = await client.session(layers, "t5-tiny", rows=32, max_tokens=2000)
        while True:
            await session.attend(0, *tensors(batch=32, queries=500, keys=500), truncate=[0] * 32)

    run(main())
