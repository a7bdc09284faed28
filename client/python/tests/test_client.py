"""Targets, settings, closing, deadlines, cancellation, threads."""

from __future__ import annotations

import gc
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable

import grpc
import numpy as np
import pytest

import attnd
from attnd import _target
from conftest import Server
from fake_server import COMPUTE, STREAM, FakeServer, answer_compute, fake, run_openssl  # noqa: F401
from inputs import same_bits, tensors
from waits import in_thread, join_all, wait_for

SRC = str(pathlib.Path(attnd.__file__).parents[1])


def test_the_target_of_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTND_SERVER", server.tcp)
    with attnd.Client() as client:
        assert client.target == server.tcp
        assert client.health() is attnd.ServingStatus.SERVING
    with attnd.Client(server.unix) as client:
        assert client.target == server.unix


@pytest.mark.parametrize("value", [None, ""])
def test_no_target_is_that_of_attnctl(attnctl_binary: str, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.delenv("ATTND_SERVER", raising=False)
    if value is not None:
        monkeypatch.setenv("ATTND_SERVER", value)
    with attnd.Client() as client:
        assert client.target == "127.0.0.1:50051"
    help_text = subprocess.run([attnctl_binary, "health", "--help"], capture_output=True, text=True, check=True).stdout
    assert f"ATTND_SERVER in the environment, else {client.target}" in " ".join(help_text.split())


SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    ("", {}, "target"),
    ("unix:/a?b", {}, "target"),
    ("unix://host/path", {}, "target"),
    ("x:1", {"load_balancing": "random"}, "load_balancing"),
    ("x:1", {"channels": 0}, "channels"),
    ("x:1", {"channels": 2.0}, "channels"),
    ("x:1", {"keepalive_time": 0}, "keepalive_time"),
    ("x:1", {"keepalive_timeout": float("nan")}, "keepalive_timeout"),
    ("x:1", {"timeout": "soon"}, "timeout"),
    ("x:1", {"retry": 3}, "retry"),
    ("x:1", {"credentials": True}, "credentials"),
    ("x:1", {"token": 3}, "token"),
    ("x:1", {"token": "secret"}, "token"),
    ("x:1", {"user_agent": "new\nline"}, "user_agent"),
]


@pytest.mark.parametrize(("target", "options", "field"), SETTINGS)
def test_settings_that_make_no_client(target: str, options: dict[str, Any], field: str) -> None:
    for kind in (attnd.Client, attnd.AsyncClient):
        with pytest.raises(attnd.InvalidArgument) as caught:
            kind(target, **options)
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("localhost:1", True),
        ("LOCALHOST.", True),
        ("127.8.9.1:1", True),
        ("[::1]:1", True),
        ("::1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("dns:///localhost:1", True),
        ("dns://1.2.3.4/localhost:1", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", True),
        ("ipv4:127.0.0.1:1,1.2.3.4:1", False),
        ("ipv6:%5B::1%5D:1", True),
        ("unix:/x", True),
        ("unix:///x", True),
        ("unix-abstract:x", True),
        ("unixx:1", False),
        ("example.org:1", False),
        ("127.0.0.1.example.org:1", False),
        ("dns:localhost.example.org", False),
        ("0.0.0.0:1", False),
        ("xds:///localhost", False),
    ],
)
def test_local_targets(target: str, local: bool) -> None:
    assert _target.is_local(target) is local


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("unix:/a b", "/a b"),
        ("unix:///a%20b", "/a b"),
        ("unix:a", "a"),
        ("unix://a/b", None),
        ("unix:/a%2", None),
        ("unix:/%00", None),
        ("unix:/a#b", None),
        ("x:1", None),
    ],
)
def test_unix_paths(name: str, path: Any) -> None:
    assert _target.unix_path(name) == path


def test_a_socket_with_odd_characters(attnd_binary: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "a b%#?ü"
    folder.mkdir()
    listen = _target.for_grpc("unix:" + str(folder / "s").replace("%", "%25").replace("#", "%23").replace("?", "%3F"))
    process = subprocess.Popen(
        [attnd_binary, f"--listen={listen}"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: (folder / "s").exists() or process.poll() is not None)
        with attnd.Client(listen) as client:
            assert client.server_info().version
    finally:
        process.kill()
        process.wait(30)


def test_closed(server: Server) -> None:
    client = attnd.Client(server.tcp)
    client.server_info()
    client.close()
    client.close()
    for call in (client.server_info, lambda: client.attend(*tensors(), "t5-tiny"), lambda: client.attend_many([])):
        with pytest.raises(attnd.FailedPrecondition) as caught:
            call()
        assert caught.value.field == "client"
    assert repr(client).endswith("closed)")


@pytest.mark.parametrize("queries", [16, 1200])
def test_closing_ends_calls_under_way(fake: FakeServer, queries: int) -> None:  # noqa: F811
    fake.handlers[COMPUTE] = fake.hang
    client = attnd.Client(fake.target)
    threading.Timer(0.3, client.close).start()
    start = time.monotonic()
    with pytest.raises((attnd.Cancelled, attnd.FailedPrecondition)):
        client.attend(*tensors(queries=queries), "m")
    assert time.monotonic() - start < 10
    assert fake.cancelled.wait(30)


@pytest.mark.parametrize("queries", [16, 1200])
def test_a_deadline(fake: FakeServer, queries: int) -> None:  # noqa: F811
    fake.handlers[COMPUTE] = fake.hang
    with attnd.Client(fake.target, timeout=0.3) as client:
        for options in ({}, {"timeout": 0.2}):
            start = time.monotonic()
            with pytest.raises(attnd.DeadlineExceeded) as caught:
                client.attend(*tensors(queries=queries), "m", **options)
            assert isinstance(caught.value, TimeoutError)
            assert time.monotonic() - start < 5
    assert fake.cancelled.wait(30)


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
def test_a_deadline_that_has_passed(server: Server, timeout: float) -> None:
    with attnd.Client(server.tcp) as client, pytest.raises(attnd.DeadlineExceeded):
        client.server_info(timeout=timeout)


def test_no_deadline(fake: FakeServer) -> None:  # noqa: F811
    seen: list[float] = []

    def answer(request: bytes, context: Any) -> bytes:
        seen.append(context.time_remaining())
        return answer_compute(request, context)

    fake.handlers[COMPUTE] = answer
    with attnd.Client(fake.target) as client:
        client.attend(*tensors(), "m")
        client.attend(*tensors(), "m", timeout=float("inf"))
        client.attend(*tensors(), "m", timeout=5)
    assert 50 < seen[0] < 61
    assert seen[1] is None or seen[1] > 1e6
    assert 0 < seen[2] < 6  # gRPC rounds what it sends


def test_metadata_token_and_user_agent(fake: FakeServer) -> None:  # noqa: F811
    tokens = iter(["one", "two", ""])
    with attnd.Client(fake.target, token=lambda: next(tokens), user_agent="mine/1") as client:
        client.server_info(metadata={"x-key": "value"})
        client.attend(*tensors(), "m", metadata=[("x-key", "a"), ("x-bytes-bin", b"\0\1")])
        with pytest.raises(attnd.InvalidArgument) as caught:
            client.server_info()
        assert caught.value.field == "token"
    first, second = fake.metadata
    assert first["x-key"] == "value"
    assert first["authorization"] == "Bearer one"
    assert f"mine/1 attnd-python/{attnd.__version__}" in first["user-agent"]
    assert second["x-bytes-bin"] == b"\0\1"
    assert second["authorization"] == "Bearer two"
    assert len(fake.metadata) == 2


def test_tls(tmp_path: pathlib.Path) -> None:
    key, certificate = run_openssl(tmp_path)
    server = FakeServer(credentials=grpc.ssl_server_credentials([(key, certificate)]))
    try:
        trusted = grpc.ssl_channel_credentials(certificate)
        with attnd.Client(f"localhost:{server.port}", credentials=trusted, token="secret") as client:
            assert client.attend(*tensors(), "m").shape == (1, 8, 16, 64)
            assert client.attend(*tensors(queries=1100), "m").shape == (1, 8, 1100, 64)
        assert all(metadata["authorization"] == "Bearer secret" for metadata in server.metadata)
        for target, credentials in (
            (f"localhost:{server.port}", None),
            (f"localhost:{server.port}", grpc.ssl_channel_credentials()),
            (f"127.0.0.1:{server.port}", trusted),
        ):
            with attnd.Client(target, credentials=credentials) as client, pytest.raises(attnd.Unavailable):
                client.server_info()
    finally:
        server.stop()


def test_several_channels_and_servers() -> None:
    servers = [FakeServer(), FakeServer()]
    target = "ipv4:" + ",".join(server.target for server in servers)
    request = attnd.ComputeRequest(*tensors(), "m")
    try:
        with attnd.Client(target, load_balancing="round_robin", channels=2) as client:
            client.server_info()
            deadline = time.monotonic() + 10
            while not all(STREAM in server.calls for server in servers):
                assert time.monotonic() < deadline
                assert len(client.attend_many([request] * 20)) == 20
    finally:
        for server in servers:
            server.stop()


def test_each_channel_has_a_connection_of_its_own(fake: FakeServer) -> None:  # noqa: F811
    peers: list[str] = []

    def answer(request: bytes, context: Any) -> bytes:
        peers.append(context.peer())
        return answer_compute(request, context)

    fake.handlers[COMPUTE] = answer
    with attnd.Client(fake.target, channels=3) as client:
        for _ in range(6):
            client.attend(*tensors(), "m")
    assert len(set(peers)) == 3


def test_64_threads(server: Server) -> None:
    q, k, v = tensors()
    failures: list[BaseException] = []
    with attnd.Client(server.tcp, channels=2) as client:
        expected = client.attend(q, k, v, "t5-tiny")
        large = tensors(queries=1100, seed=1)
        expected_large = client.attend(*large, "t5-tiny")

        def work(index: int) -> None:
            try:
                for _ in range(10):
                    assert same_bits(client.attend(q, k, v, "t5-tiny"), expected)
                    with pytest.raises(attnd.NotFound):
                        client.attend(q, k, v, "nobody")
                if index % 16 == 0:
                    assert same_bits(client.attend(*large, "t5-tiny"), expected_large)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(64)]
        for thread in threads:
            thread.start()
        join_all(threads)
    assert not failures


def run_python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": SRC}
    return subprocess.run(  # noqa: PLW1510 (the test looks at the result)
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


INTERRUPTED = """
import attnd, numpy as np, os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
x = np.ones((1, 8, int(sys.argv[2]), 64), np.float32)
requests = [attnd.ComputeRequest(x, x, x, "m")] * 3
with attnd.Client(sys.argv[1], channels=int(sys.argv[4])) as client:
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        client.attend_many(requests) if sys.argv[3] == "many" else client.attend(x, x, x, "m")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        time.sleep(20)
"""


@pytest.mark.parametrize(
    ("queries", "calls", "channels"), [(16, "one", 1), (1200, "one", 1), (16, "many", 1), (16, "many", 2)]
)
def test_an_interrupted_call_is_cancelled(fake: FakeServer, queries: int, calls: str, channels: int) -> None:  # noqa: F811
    """While the process and the client live on."""
    fake.handlers[COMPUTE] = fake.hang
    fake.handlers[STREAM] = lambda requests, context: iter([fake.hang(b"", context)])
    environment = {**os.environ, "PYTHONPATH": SRC}
    words = [sys.executable, "-c", INTERRUPTED, fake.target, str(queries), calls, str(channels)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert in_thread(process.stdout.readline)() == "interrupted\n"
        assert fake.cancelled.wait(30)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)


DROPPED = """
import attnd, gc, numpy as np, os, sys, threading, time
x = np.ones((1, 8, 16, 64), np.float32)
big = np.ones((1, 8, 1100, 64), np.float32)

def use():
    client = attnd.Client(sys.argv[1], channels=2)
    client.attend(x, x, x, "t5-tiny")
    client.attend(big, big, big, "t5-tiny")
    client.attend_many([attnd.ComputeRequest(x, x, x, "t5-tiny")] * 8)

def descriptors():
    return len(os.listdir("/proc/self/fd"))

for _ in range(3):
    use()
gc.collect()
time.sleep(1)
before = descriptors(), threading.active_count()
for _ in range(20):
    use()
gc.collect()
deadline = time.monotonic() + 20
while (descriptors() > before[0] or threading.active_count() > before[1]) and time.monotonic() < deadline:
    time.sleep(0.1)
print(descriptors() - before[0], threading.active_count() - before[1])
"""


def test_dropped_without_closing(server: Server) -> None:
    done = run_python(DROPPED, server.tcp)
    assert done.returncode == 0, done.stderr
    more_descriptors, more_threads = map(int, done.stdout.split())
    assert more_descriptors <= 0
    assert more_threads <= 0
    assert done.stderr == ""


def test_no_reference_cycle_holds_a_client(server: Server) -> None:
    gc.collect()
    gc.disable()
    try:
        client = attnd.Client(server.tcp)
        client.attend(*tensors(), "t5-tiny")
        core = client._core
        del client
        alone = object()
        assert sys.getrefcount(core) == sys.getrefcount(alone)
    finally:
        gc.enable()


def test_restart_of_the_server(make_server: Callable[..., Server], attnd_binary: str) -> None:
    """Killed in the middle of calls, and started again at the same socket."""
    first = make_server()
    q, k, v = tensors(queries=1500)
    with attnd.Client(first.unix, shared_memory=False, local_calls=False) as client:
        expected = client.attend(q, k, v, "t5-tiny")
        threading.Timer(0.05, first.kill).start()
        results: list[Any] = []

        def restart() -> None:
            time.sleep(0.6)
            os.unlink(first.socket)
            results.append(subprocess.Popen([attnd_binary, f"--listen={first.unix}"], stderr=subprocess.DEVNULL))

        thread = threading.Thread(target=restart)
        thread.start()
        try:
            for _ in range(20):
                assert same_bits(client.attend(q, k, v, "t5-tiny"), expected)
        finally:
            join_all([thread])
            results[0].kill()
            results[0].wait(30)


def test_import_takes_no_optional_package() -> None:
    code = "import attnd, sys; print([m for m in ('torch', 'jax', 'ml_dtypes', 'google.rpc') if m in sys.modules])"
    assert run_python(code).stdout == "[]\n"
    assert np.__name__ == "numpy"
