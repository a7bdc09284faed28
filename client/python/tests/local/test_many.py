"""attend_many over the local socket: what ends it early ends its calls on the server too."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Iterable, Iterator, List

import pytest

import attnd
from attnd.v1 import local_pb2
from inputs import tensors
from waits import join_all

from .fake_server import Answer, FakeServer, wait_for

NEVER = attnd.Retry(enabled=False)
FOREVER = float("inf")


def target_of(fake: FakeServer) -> str:
    return "unix:" + fake.path[: -len(".shm")]


class BrokenIteratorError(Exception):
    """What a caller's iterator raises."""


def refuse_bad(server: FakeServer, call: local_pb2.LocalCall) -> Answer:
    """Refuses "bad" once three other calls are under way, which get no answer."""
    if call.request.model != "bad":
        return None
    wait_for(lambda: len(server.calls) == 4)
    return local_pb2.LocalAnswer(id=call.id, code=5, message="no such model")


def requests(last: str = "m") -> List[attnd.ComputeRequest]:
    return [attnd.ComputeRequest(*tensors(), name) for name in ("m", "m", "m", last)]


def failure_of(client: attnd.Client, given: Iterable[attnd.ComputeRequest]) -> BaseException:
    """What attend_many raises."""
    raised: List[BaseException] = []

    def work() -> None:
        try:
            client.attend_many(given)
        except BaseException as error:
            raised.append(error)

    threading.Thread(target=work, daemon=True).start()
    wait_for(lambda: bool(raised))
    return raised[0]


@pytest.mark.parametrize("retry", [NEVER, attnd.Retry()], ids=["once", "repeated"])
@pytest.mark.parametrize("known", [False, True])
def test_a_failure_cancels_the_other_calls(fake: FakeServer, retry: attnd.Retry, known: bool) -> None:
    with attnd.Client(target_of(fake), retry=retry, timeout=FOREVER) as client:
        if known:
            client.attend(*tensors(), "m")
            fake.calls.clear()
        fake.on_call = refuse_bad
        assert isinstance(failure_of(client, requests("bad")), attnd.NotFound)
        wait_for(lambda: fake.ends == 3)
        assert len(fake.calls) == 4  # none was repeated
        # The client goes on.
        fake.on_call = lambda server, call: server.result(call)
        assert client.attend(*tensors(), "m").shape == (1, 8, 16, 64)


def test_an_iterator_that_breaks_cancels_the_calls(fake: FakeServer) -> None:
    fake.on_call = lambda server, call: None

    def breaking() -> Iterator[attnd.ComputeRequest]:
        yield from requests()[:3]
        wait_for(lambda: len(fake.calls) == 3)
        raise BrokenIteratorError

    with attnd.Client(target_of(fake), retry=NEVER, timeout=FOREVER) as client:
        assert isinstance(failure_of(client, breaking()), BrokenIteratorError)
        wait_for(lambda: fake.ends == 3)


def test_an_interrupt_cancels_the_calls(fake: FakeServer) -> None:
    fake.on_call = lambda server, call: None

    def interrupt() -> None:
        wait_for(lambda: len(fake.calls) == 4)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with attnd.Client(target_of(fake), retry=NEVER, timeout=FOREVER) as client:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            client.attend_many(requests())
        wait_for(lambda: fake.ends == 4)
    join_all([thread])


def test_a_failure_cancels_the_other_tasks(fake: FakeServer) -> None:
    fake.on_call = refuse_bad

    async def main() -> None:
        async with attnd.AsyncClient(target_of(fake), retry=NEVER, timeout=FOREVER) as client:
            with pytest.raises(attnd.NotFound):
                await asyncio.wait_for(client.attend_many(requests("bad")), 60)
            await asyncio.get_running_loop().run_in_executor(None, wait_for, lambda: len(fake.cancels) == 3)

    asyncio.run(main())


def test_more_calls_than_connections_end_too(fake: FakeServer) -> None:
    """A thread that waits for a connection takes none after the failure."""
    from attnd._local import MAX_CONNECTIONS

    def refuse(server: FakeServer, call: local_pb2.LocalCall) -> Answer:
        if call.request.model != "bad":
            return None
        wait_for(lambda: len(server.calls) == MAX_CONNECTIONS)
        return local_pb2.LocalAnswer(id=call.id, code=5, message="no such model")

    fake.on_call = refuse
    given = [attnd.ComputeRequest(*tensors(), "bad" if i == 0 else "m") for i in range(MAX_CONNECTIONS + 16)]
    with attnd.Client(target_of(fake), retry=NEVER, timeout=FOREVER, channels=20) as client:
        assert isinstance(failure_of(client, given), attnd.NotFound)
        wait_for(lambda: fake.ends >= MAX_CONNECTIONS - 1)
        assert len(fake.calls) == MAX_CONNECTIONS
