"""Whatever happens to the server, the client or the system: a right answer or a typed error, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import pathlib
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from functools import partial
from typing import Any, Callable, Iterator, List, Optional

import numpy as np
import pytest

import attnd
from conftest import Server
from inputs import same_bits, tensors
from waits import join_all

from .fake_server import descriptors, wait_for
from .test_doors import host_of, in_shared_memory

NEVER = attnd.Retry(enabled=False)
DOORS = {"local": {}, "shared_memory": {"local_calls": False}}


@pytest.fixture(params=DOORS)
def options(request: Any) -> Any:
    return DOORS[request.param]


@pytest.fixture
def own(attnd_binary: str, tmp_path: pathlib.Path) -> Iterator[Callable[[], Server]]:
    """Starts a server, always at the same socket; the one before must have ended."""
    made: List[Server] = []

    def start() -> Server:
        made.append(Server(attnd_binary, tmp_path / "server", ("--threads=1",)))
        return made[-1]

    yield start
    for server in made:
        server.kill()


def cpu_seconds(server: Server) -> float:
    """Of the server's process so far."""
    fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shared_regions(server: Server) -> int:
    return pathlib.Path(f"/proc/{server.process.pid}/maps").read_text().count("memfd:attnd")


def slow_call(client: attnd.Client) -> Any:
    """Arguments of a call that keeps a core for some seconds."""
    return (client.empty((1, 8, 24000, 64)),) * 3


def in_thread(work: Callable[[], Any]) -> Any:
    """Runs it; a function that waits for the result or the error."""
    outcome: List[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def wait() -> Any:
        thread.join(60)
        return outcome[0]

    return wait


def wait_until_computing(server: Server) -> None:
    """Until the server has been computing for a moment."""

    def ticks() -> int:
        fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11])

    before = ticks()
    wait_for(lambda: ticks() > before + 5)


def test_killed_during_a_call(own: Any, options: Any) -> None:
    server = own()
    with attnd.Client(server.unix, retry=NEVER, **options) as client:
        arrays = slow_call(client)
        client.attend(*tensors(), "t5-tiny")
        result = in_thread(lambda: client.attend(*arrays, "t5-tiny"))
        wait_until_computing(server)
        server.kill()
        assert isinstance(result(), attnd.Unavailable)


def frozen(server: Server) -> Any:
    """Stopped, and not dead: its sockets take what is sent, and nothing comes back."""

    @contextlib.contextmanager
    def stopped() -> Iterator[None]:
        server.process.send_signal(signal.SIGSTOP)
        os.waitpid(server.process.pid, os.WUNTRACED)  # until all of its threads have stopped
        try:
            yield
        finally:
            server.process.send_signal(signal.SIGCONT)

    return stopped()


def test_a_frozen_server_is_noticed_by_calls_without_end(own: Any) -> None:
    server = own()
    keepalive = {"keepalive_time": 0.3, "keepalive_timeout": 0.5}
    with attnd.Client(server.unix, retry=NEVER, timeout=math.inf, **keepalive) as client:
        client.attend(*tensors(), "t5-tiny")
        assert client.transport == "local"
        with frozen(server), pytest.raises(attnd.Unavailable, match="no sign of life"):
            client.attend(*tensors(), "t5-tiny")
        wait_for(lambda: attends(client) and client.transport == "local")
    with attnd.Client(server.unix, timeout=math.inf, **keepalive) as client:
        client.attend(*tensors(), "t5-tiny")
        with frozen(server):
            result = in_thread(lambda: client.attend(*tensors(), "t5-tiny"))
            time.sleep(1.5)
        assert not isinstance(result(), Exception)  # it was repeated


def attends(client: attnd.Client) -> bool:
    try:
        client.attend(*tensors(), "t5-tiny")
    except attnd.Unavailable:
        return False
    return True


def test_a_frozen_server_is_noticed_by_tasks_without_end(own: Any) -> None:
    server = own()

    async def main() -> None:
        async with attnd.AsyncClient(
            server.unix, retry=NEVER, timeout=math.inf, keepalive_time=0.3, keepalive_timeout=0.5
        ) as client:
            await client.attend(*tensors(), "t5-tiny")
            with frozen(server):
                results = await asyncio.gather(
                    *(client.attend(*tensors(), "t5-tiny") for _ in range(3)), return_exceptions=True
                )
            # Those whose memory was to be registered first may have gone by gRPC.
            assert all(isinstance(result, attnd.Unavailable) for result in results)
            assert any("no sign of life" in str(result) for result in results)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_killed_and_restarted_during_calls(own: Any, options: Any) -> None:
    server = own()
    q, k, v = tensors(queries=100)
    with attnd.Client(server.unix, **options) as client:
        shared = tuple(in_shared_memory(client, x) for x in (q, k, v))
        expected = client.attend(q, k, v, "t5-tiny")
        done = threading.Event()
        wrong: List[Any] = []

        def work(arrays: Any) -> None:
            while not done.is_set():
                try:
                    if not same_bits(client.attend(*arrays, "t5-tiny"), expected):
                        wrong.append("bits")
                except BaseException as error:
                    wrong.append(error)

        threads = [threading.Thread(target=work, args=(arrays,)) for arrays in (shared, (q, k, v)) * 3]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.2)
            server.kill()
            time.sleep(0.1)
            server = own()
        time.sleep(0.3)
        done.set()
        join_all(threads)
        assert wrong == []
        # Back where it was, with the memory known to the new server.
        request = attnd.ComputeRequest(*shared, "t5-tiny")
        wait_for(lambda: client.compute(request).transport == ("local" if not options else "shared_memory"))
        assert same_bits(client.compute(request).output, expected)
        assert shared_regions(server) >= 1


def test_ended_under_load(own: Any, options: Any) -> None:
    server = own()
    q, k, v = tensors(queries=200)
    with attnd.Client(server.unix, retry=NEVER, **options) as client:
        expected = client.attend(q, k, v, "t5-tiny")
        outcomes: List[Any] = []

        def work() -> None:
            while True:
                try:
                    outcomes.append(same_bits(client.attend(q, k, v, "t5-tiny"), expected))
                except attnd.Error as error:
                    outcomes.append(type(error))
                    return

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        assert server.stop() == 0
        join_all(threads)
        assert {True} < set(outcomes) <= {True, attnd.Unavailable, attnd.Cancelled}


def test_an_idle_client_does_not_notice_a_restart(own: Any, options: Any) -> None:
    server = own()
    with attnd.Client(server.unix, **options) as client:
        arrays = tuple(in_shared_memory(client, x) for x in tensors(queries=100))
        expected = client.attend(*arrays, "t5-tiny")
        server.stop()
        own()
        assert same_bits(client.attend(*arrays, "t5-tiny"), expected)


def test_a_handle_that_the_server_does_not_know_is_made_anew(server: Server, options: Any) -> None:
    with attnd.Client(server.unix, retry=NEVER, **options) as client:
        arrays = tuple(in_shared_memory(client, x) for x in tensors(queries=100))
        expected = client.attend(*arrays, "t5-tiny")
        for region in host_of(client).memory._index[1]:
            region.handle, region.fields = bytes(16), {}
        assert same_bits(client.attend(*arrays, "t5-tiny"), expected)


def test_a_timeout_is_kept_and_its_memory_not_reused(own: Any, options: Any, monkeypatch: Any) -> None:
    with attnd.Client(own().unix, retry=NEVER, **options) as client:
        q = np.ones((1, 8, 24000, 64), np.float32)
        client.attend(*tensors(queries=100), "t5-tiny")
        stager = host_of(client).stager
        assert stager.pool.idle_bytes > 0  # that of the call that succeeded
        staged: List[Any] = []
        stage = stager.stage
        monkeypatch.setattr(stager, "stage", lambda *given: staged.append(stage(*given)) or staged[-1])
        timeout = 0.3
        # The first timeouts may pass before the memory is made.
        while not any(staged):
            with pytest.raises(attnd.DeadlineExceeded):
                client.attend(q, q, q, "t5-tiny", timeout=timeout)
            timeout *= 2
        assert all(block.region is not staged[-1]._block.region for block, _ in stager.pool._idle)
        assert client.attend(*tensors(), "t5-tiny").shape == (1, 8, 16, 64)


def test_keyboard_interrupt_cancels_at_the_server(own: Any, options: Any) -> None:
    server = own()
    with attnd.Client(server.unix, retry=NEVER, **options) as client:
        arrays = slow_call(client)
        client.attend(*tensors(), "t5-tiny")
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            client.attend(*arrays, "t5-tiny")
        join_all([timer])
        # One thread computes: had the call not been cancelled, this one would wait for seconds.
        start = time.monotonic()
        client.attend(*tensors(), "t5-tiny")
        assert time.monotonic() - start < 3


def test_a_cancelled_task_cancels_at_the_server(own: Any, options: Any) -> None:
    server = own()

    async def main() -> None:
        async with attnd.AsyncClient(server.unix, retry=NEVER, **options) as client:
            arrays = (client.empty((1, 8, 24000, 64)),) * 3
            await client.attend(*tensors(), "t5-tiny")
            task = asyncio.ensure_future(client.attend(*arrays, "t5-tiny"))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            start = time.monotonic()
            await client.attend(*tensors(), "t5-tiny")
            assert time.monotonic() - start < 3

    asyncio.run(main())


def test_close_during_calls(own: Any, options: Any) -> None:
    server = own()
    client = attnd.Client(server.unix, retry=NEVER, **options)
    arrays = slow_call(client)
    client.attend(*tensors(), "t5-tiny")
    result = in_thread(lambda: client.attend(*arrays, "t5-tiny"))
    wait_until_computing(server)
    client.close()
    client.close()
    assert isinstance(result(), attnd.Cancelled)
    for refused in (lambda: client.attend(*arrays, "t5-tiny"), lambda: client.empty(3), lambda: client.transport):
        with pytest.raises(attnd.FailedPrecondition):
            refused()
    arrays[0][:] = 1  # the memory is ordinary memory now


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_what_fails_keeps_no_memory(server: Server, options: Any) -> None:
    """Not even until the garbage collector runs, which counts objects and not their bytes."""
    arrays = tensors(queries=300)
    with attnd.Client(server.unix, retry=NEVER, **options) as client:
        client.attend(*tensors(queries=100), "t5-tiny")
        before = host_of(client).memory.count
        with contextlib.suppress(attnd.NotFound):
            client.attend(*arrays, "nobody")
        assert host_of(client).memory.count == before
        with contextlib.suppress(attnd.NotFound):
            client.attend_many([attnd.ComputeRequest(*arrays, "nobody")] * 4)
        assert host_of(client).memory.count == before
        outputs = client.attend_many([attnd.ComputeRequest(*arrays, "t5-tiny")] * 4)
        last = weakref.ref(outputs[-1])
        del outputs
        assert last() is None


@pytest.mark.usefixtures("no_collector")
def test_a_task_that_fails_keeps_no_memory(server: Server, options: Any) -> None:
    arrays = tensors(queries=300)

    async def main() -> None:
        in_executor = partial(asyncio.get_running_loop().run_in_executor, None)
        async with attnd.AsyncClient(server.unix, retry=NEVER, **options) as client:
            await client.attend(*tensors(queries=100), "t5-tiny")
            memory = host_of(client).memory
            before = memory.count
            with contextlib.suppress(attnd.NotFound):
                await client.attend(*arrays, "nobody")
            # Large tensors are copied on another thread, also for a task that was cancelled meanwhile.
            await in_executor(wait_for, lambda: memory.count == before)
            with contextlib.suppress(attnd.NotFound):
                await client.attend_many([attnd.ComputeRequest(*arrays, "nobody")] * 4)
            await in_executor(wait_for, lambda: memory.count == before)

    asyncio.run(main())


@pytest.mark.parametrize("ending", ["close", "drop"])
def test_nothing_is_left(make_server: Any, options: Any, ending: str) -> None:
    server = make_server()
    with attnd.Client(server.unix) as warm:
        warm.attend(*tensors(), "t5-tiny")  # what gRPC opens once
    gc.collect()
    before, threads = descriptors(), threading.active_count()
    client: Optional[attnd.Client] = attnd.Client(server.unix, **options)
    assert client is not None
    kept = client.empty((1, 8, 100, 64))
    lost = client.empty((1, 8, 100, 64))
    client.attend(kept, lost, kept, "t5-tiny", out=client.empty(kept.shape))
    client.attend(*tensors(queries=100), "t5-tiny")
    assert shared_regions(server) > 0
    del lost
    if ending == "close":
        client.close()
    client = None
    gc.collect()
    wait_for(lambda: shared_regions(server) == 0)
    kept[:] = 1
    assert len([entry for entry in descriptors() if "memfd:attnd" in entry[1]]) == 1
    del kept
    gc.collect()
    # gRPC closes its own a little later.
    wait_for(lambda: len(descriptors()) <= len(before))
    assert threading.active_count() <= threads


def test_an_asyncio_client_leaves_nothing(make_server: Any) -> None:
    server = make_server()

    async def main(close: bool) -> None:
        client = attnd.AsyncClient(server.unix)
        arrays = tuple(client.empty((1, 8, 100, 64)) for _ in range(3))
        await client.attend(*arrays, "t5-tiny")
        await client.attend(*tensors(queries=100), "t5-tiny")
        assert client.transport == "local"
        if close:
            await client.close()

    asyncio.run(main(True))
    gc.collect()
    wait_for(lambda: shared_regions(server) == 0)
    before = descriptors()
    asyncio.run(main(True))
    asyncio.run(main(False))
    gc.collect()
    wait_for(lambda: shared_regions(server) == 0)
    assert not [entry for entry in descriptors() if "memfd:attnd" in entry[1]]
    wait_for(lambda: len(descriptors()) <= len(before))


def test_memory_goes_with_its_array_while_the_client_lives(make_server: Any, options: Any) -> None:
    server = make_server()
    with attnd.Client(server.unix, **options) as client:
        for _ in range(300):  # more than a connection may have at once
            q = client.empty((1, 8, 150, 64))
            client.attend(q, q, q, "t5-tiny", out=client.empty(q.shape))
        del q
        gc.collect()
        wait_for(lambda: shared_regions(server) == 0)


def test_more_arrays_than_the_server_takes(make_server: Any, options: Any) -> None:
    server = make_server()
    with attnd.Client(server.unix, **options) as client:
        arrays = [client.empty((1, 8, 150, 64)) for _ in range(300)]
        expected = client.attend(*arrays[:3], "t5-tiny")
        for array in arrays:
            assert same_bits(client.attend(array, array, array, "t5-tiny"), expected)


def test_no_descriptor_left(server: Server, options: Any) -> None:
    q, k, v = tensors(queries=100)
    with attnd.Client(server.unix, **options) as client, attnd.Client(server.tcp) as plain:
        expected = plain.attend(q, k, v, "t5-tiny")
        plain.attend(q, k, v, "t5-tiny")
        client.server_info()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name, _ in descriptors())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        held = []
        try:
            with pytest.raises(OSError, match="Too many"):
                while True:
                    held.append(os.dup(0))
            # What is open goes on: tensors travel by gRPC.
            reply = client.compute(attnd.ComputeRequest(q, k, v, "t5-tiny"))
            with pytest.raises(attnd.ResourceExhausted):
                client.empty(1 << 20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in held:
                os.close(fd)
        assert reply.transport == "grpc"
        assert same_bits(reply.output, expected)
        wait_for(lambda: client.compute(attnd.ComputeRequest(q, k, v, "t5-tiny")).transport != "grpc")


@pytest.mark.parametrize("target", ["unix", "tcp"])
def test_sixty_four_threads(server: Server, target: str) -> None:
    calls = [tensors(queries=1 + n * 7 % 120, seed=n) for n in range(64)]
    with attnd.Client(server.tcp) as plain:
        expected = [plain.attend(*call, "t5-tiny") for call in calls]
    wrong: List[Any] = []
    with attnd.Client(getattr(server, target)) as client:

        def work(n: int) -> None:
            try:
                mine = calls[n] if n % 2 else tuple(in_shared_memory(client, x) for x in calls[n])
                wrong.extend(n for _ in range(20) if not same_bits(client.attend(*mine, "t5-tiny"), expected[n]))
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
        for thread in threads:
            thread.start()
        join_all(threads)
    assert wrong == []


@pytest.mark.parametrize("target", ["unix", "tcp"])
def test_a_thousand_tasks(server: Server, target: str) -> None:
    calls = [tensors(queries=1 + n * 7 % 60, seed=n) for n in range(50)]
    with attnd.Client(server.tcp) as plain:
        expected = [plain.attend(*call, "t5-tiny") for call in calls]

    async def main() -> None:
        async with attnd.AsyncClient(getattr(server, target)) as client:
            found = await asyncio.gather(*(client.attend(*calls[n % 50], "t5-tiny") for n in range(1000)))
            assert all(same_bits(found[n], expected[n % 50]) for n in range(1000))

    asyncio.run(main())


FORK = """
    import os, signal, sys, time
    import numpy as np
    import attnd
    target, pid, options, drop = sys.argv[1], sys.argv[2], eval(sys.argv[3]), eval(sys.argv[4])
    regions = lambda: open(f"/proc/{pid}/maps").read().count("memfd:attnd")
    client = attnd.Client(target, **options)
    arrays = tuple(client.empty((1, 8, 100, 64)) for _ in range(3))
    for array in arrays:
        array[:] = 0.5
    expected = client.attend(*arrays, "t5-tiny")
    shared = regions()
    door = client._core.transports[0]._host.door
    connections = door and list(door._idle)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        for refused in (
            lambda: client.attend(*arrays, "t5-tiny"), lambda: client.empty(3), lambda: attnd.Client(target)
        ):
            try:
                refused()
                os._exit(1)
            except attnd.FailedPrecondition:
                pass
        assert arrays[0].sum() == 0.5 * arrays[0].size
        client.close()
        if drop:
            del client, arrays
        os.write(write, b"x")
        time.sleep(15)
        os._exit(0)
    assert os.read(read, 1) == b"x"
    assert regions() == shared, (regions(), shared)
    assert np.array_equal(client.attend(*arrays, "t5-tiny"), expected)
    # The parent's connections are those from before.
    host = client._core.transports[0]._host
    assert host.memory.keeper.generation == 0
    assert host.door is None or len(host.door._idle) == len(host.door._made) == 1
    assert connections == (host.door and list(host.door._idle))
    # The server's memory goes though the child lives.
    client.close()
    deadline = time.monotonic() + 10
    while regions() and time.monotonic() < deadline:
        time.sleep(0.01)
    print(regions())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("options", DOORS.values(), ids=DOORS)
def test_fork(make_server: Any, options: Any, drop: bool) -> None:
    server = make_server()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORK), server.unix, str(server.process.pid), repr(options), repr(drop)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=180,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == "0\n"


def test_the_interpreter_ends_with_arrays_in_use(server: Server) -> None:
    code = """
        import sys, threading, time, attnd
        client = attnd.Client(sys.argv[1])
        array = client.empty((1, 8, 100, 64))
        client.attend(array, array, array, "t5-tiny")
        def write():
            while True:
                array[:] = 1
        threading.Thread(target=write, daemon=True).start()
        time.sleep(0.05)
    """
    for _ in range(3):
        subprocess.run(
            [sys.executable, "-X", "dev", "-c", textwrap.dedent(code), server.unix],
            check=True,
            timeout=180,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
