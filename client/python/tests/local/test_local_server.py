"""attnd.local_server(): it serves, ends with whatever holds it, and leaves nothing."""

from __future__ import annotations

import gc
import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from typing import Iterator, List

import pytest

from attnd._server import LocalServer, local_server
from attnd._target import unix_path
from attnd.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable
from waits import join_all

from .fake_server import wait_for


@pytest.fixture(autouse=True)
def temporary(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A TMPDIR of the test's own, to see what is left in it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    folder.rmdir()


def socket_of(server: LocalServer) -> pathlib.Path:
    path = unix_path(server.target)
    assert path is not None
    return pathlib.Path(path)


def children_of(pid: int) -> List[int]:
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_serves_until_the_block_ends(attnd_binary: str) -> None:
    with local_server(attnd_binary, threads=1) as server:
        assert stat.S_IMODE(socket_of(server).parent.stat().st_mode) == 0o700
        assert stat.S_ISSOCK(pathlib.Path(f"{socket_of(server)}.shm").stat().st_mode)
        processes = [server.pid, *children_of(server.pid)]
        assert len(processes) == 2
        with server.client() as client:
            assert client.server_info().threads == 1
    assert not any(runs(pid) for pid in processes)
    with pytest.raises(FailedPrecondition):
        server.target  # noqa: B018


def test_it_ends_with_an_exception(attnd_binary: str) -> None:
    with pytest.raises(ZeroDivisionError), local_server(attnd_binary) as server:
        pid = server.pid
        raise ZeroDivisionError
    assert not runs(pid)


def test_start_and_close_may_be_called_again(attnd_binary: str) -> None:
    server = local_server(attnd_binary)
    server.close()
    first = server.start().target
    assert server.start().target == first
    assert "attnd.sock" in repr(server)
    server.close()
    server.close()
    assert "not running" in repr(server)
    assert server.start().target != first
    server.close()


def test_it_ends_with_its_last_reference(attnd_binary: str) -> None:
    server = local_server(attnd_binary).start()
    pid = server.pid
    del server
    gc.collect()
    assert not runs(pid)


def test_it_outlives_the_thread_that_started_it(attnd_binary: str) -> None:
    servers: List[LocalServer] = []
    thread = threading.Thread(target=lambda: servers.append(local_server(attnd_binary).start()))
    thread.start()
    join_all([thread])
    with servers[0] as server:
        processes = [server.pid, *children_of(server.pid)]
        time.sleep(0.7)
        assert all(runs(pid) for pid in processes)


@pytest.mark.parametrize("ending", ["import os; os.kill(os.getpid(), 9)", "import os; os._exit(3)", "pass", "1 / 0"])
def test_it_ends_with_the_process(attnd_binary: str, ending: str, temporary: pathlib.Path) -> None:
    script = f"""
        from attnd._server import local_server
        server = local_server({attnd_binary!r}).start()
        print(server.pid, *open(f"/proc/{{server.pid}}/task/{{server.pid}}/children").read().split(), flush=True)
        {ending}
    """
    python = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    processes = [int(pid) for pid in python.stdout.split()]
    assert len(processes) == 2
    wait_for(lambda: not any(runs(pid) for pid in processes))
    wait_for(lambda: not list(temporary.iterdir()))


def test_the_server_ends_with_what_guards_it(attnd_binary: str) -> None:
    with local_server(attnd_binary) as server:
        child = children_of(server.pid)[0]
        os.kill(server.pid, signal.SIGKILL)
        wait_for(lambda: not runs(child))


def test_a_forked_child_does_not_end_it(attnd_binary: str) -> None:
    script = f"""
        import gc, os, sys
        from attnd._server import local_server
        server = local_server({attnd_binary!r}).start()
        if os.fork() == 0:
            server.close()
            sys.exit(0)
        os.wait()
        print(os.path.exists(server.target[7:]))
    """
    python = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert python.stdout == "True\n"


def test_ctrl_c_does_not_reach_the_server(attnd_binary: str) -> None:
    with local_server(attnd_binary) as server:
        assert os.getsid(server.pid) != os.getsid(0)


def test_the_binary_is_looked_for(attnd_binary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTND_BINARY", raising=False)
    monkeypatch.setenv("PATH", os.path.dirname(attnd_binary))
    with local_server() as server:
        assert runs(server.pid)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("ATTND_BINARY", attnd_binary)
    with local_server() as server:
        assert runs(server.pid)


@pytest.mark.parametrize(
    ("binary", "variable", "words"),
    [
        ("/nowhere/attnd", "", "binary '/nowhere/attnd'"),
        (None, "/no", "ATTND_BINARY '/no'"),
        (None, "", "/nothing/here"),
    ],
)
def test_no_binary(binary: str, variable: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nothing/here")
    monkeypatch.setenv("ATTND_BINARY", variable)
    with pytest.raises(NotFound) as caught:
        local_server(binary).start()
    assert caught.value.field == "binary"
    assert words in caught.value.got


def test_a_server_that_ends_at_once(attnd_binary: str) -> None:
    with pytest.raises(Unavailable, match="max_dimension"):
        local_server(attnd_binary, arguments=["--max_dimension=1"]).start()


def program(folder: pathlib.Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_server_that_does_not_serve(tmp_path: pathlib.Path) -> None:
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="sleeping"):
        local_server(program(tmp_path, "echo sleeping; exec sleep 60"), timeout=2).start()
    assert time.monotonic() - start < 20


def test_a_server_that_does_not_want_to_end(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnd._server._DRAIN_SECONDS", 0.2)
    monkeypatch.setattr("attnd._server._STOP_SECONDS", 0.2)
    with pytest.raises(DeadlineExceeded):
        local_server(program(tmp_path, "trap '' TERM; while :; do sleep 0.1; done"), timeout=0.3).start()


def test_a_long_tmpdir(attnd_binary: str, temporary: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = temporary / ("x" * 100)
    long.mkdir()
    short = temporary / "r"
    short.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    with local_server(attnd_binary) as server:
        assert socket_of(server).parents[1] == short
    assert list(short.iterdir()) == []
    assert list(long.iterdir()) == []
    short.rmdir()
    long.rmdir()


def test_odd_characters_in_tmpdir(attnd_binary: str, temporary: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = temporary / "a b%41é"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with local_server(attnd_binary) as server, server.client() as client:
        assert client.server_info().threads >= 1
    odd.rmdir()


def test_a_comma_in_tmpdir(attnd_binary: str, temporary: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = temporary / "a,b"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with local_server(attnd_binary) as server, server.client() as client:
        assert client.server_info().threads >= 1
    assert list(odd.iterdir()) == []
    odd.rmdir()


def test_models_are_loaded(attnd_binary: str, golden: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "models").mkdir()
    os.symlink(golden / "checkpoints", tmp_path / "models" / "none")
    with local_server(attnd_binary, models=tmp_path / "models") as server, server.client() as client:
        assert client.list_models()


def test_what_it_wrote_can_be_read(attnd_binary: str) -> None:
    with local_server(attnd_binary) as server:
        # It takes connections before it writes that it does.
        end = time.monotonic() + 10
        while "kernel" not in server.log() and time.monotonic() < end:
            time.sleep(0.01)
        assert "kernel" in server.log()
