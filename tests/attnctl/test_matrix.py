"""Every command and flag of attnctl with the mistakes that users make: no crash, no word of a library, the first line
says what is wrong and the second what to do.

Commands and flags come from the program itself, so a new one is tested without a line here.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import grpc
import pytest
from attnctl_runs import Attnctl, Run, all_faults, faults, safetensors, table

ATTND = os.environ["ATTND_BINARY"]
CHECKPOINTS = Path(os.environ["ATTND_GOLDEN"]) / "checkpoints"
COMMANDS: List[Dict[str, Any]] = table()["commands"]
SHAPE = [1, 8, 16, 64]  # of the heads of t5-tiny

NOT_OPEN = "999999"  # a session

# What a command needs beside a flag under test, where its arguments' names do not say it.
NEEDED: Dict[str, List[str]] = {
    "attend": ["--model", "t5-tiny", "--input", "ok", "--output", "o"],
    "models load": ["t5_fp32", "--name", "loaded"],
    "models upload": ["up", str(CHECKPOINTS / "t5_fp32"), "--replace"],
    "models unload": ["nobody"],
    "models reload": ["nobody"],
    "sessions show": [NOT_OPEN],
    "sessions evict": [NOT_OPEN],
    "sessions plan": ["--self_layers=6", "--max_tokens=100", "--heads=8", "--head_dim=64"],
}
# These answer without a server.
LOCAL = {"completion", "manual"}


def words_of(command: Dict[str, Any]) -> List[str]:
    """A line that the command accepts."""
    known = {"MODEL": "book", "SHELL": "bash"}
    arguments = [known.get(argument.rstrip("."), "book") for argument in command["arguments"] if argument[0] != "["]
    return [*command["name"].split(), *NEEDED.get(command["name"], arguments)]


def flags() -> Iterator[Tuple[Dict[str, Any], Dict[str, Any]]]:
    for command in COMMANDS:
        for flag in command["flags"]:
            yield command, flag


class Server:
    """The real server, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:{folder}/attnd.sock"
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [ATTND, f"--listen={self.address}", f"--model_root={CHECKPOINTS}"], stderr=log, stdout=log
            )
        asked = Attnctl(folder, self.address)
        while asked.run("info").code != 0:
            assert self.process.poll() is None, (folder / "log").read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("matrix")
    safetensors(path / "ok", dict.fromkeys("qkv", ("F32", SHAPE)))
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    running = Server(folder)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def attnctl(folder: Path, server: Server) -> Attnctl:
    return Attnctl(folder, server.address)


def expect_none(found: List[str]) -> None:
    assert not found, "\n\n".join(found)


def test_the_table_has_all() -> None:
    names = {command["name"] for command in COMMANDS}
    assert {"attend", "bias", "models list", "info", "health"} <= names
    assert len(list(flags())) > 50


def test_a_whole_line_is_accepted(attnctl: Attnctl) -> None:
    """Else the tests of flags below would test something else."""

    def check(command: Dict[str, Any]) -> List[str]:
        run = attnctl.run(*words_of(command))
        return [] if run.code in (0, 4 if {"nobody", NOT_OPEN} & set(words_of(command)) else 0) else [str(run)]

    expect_none(all_faults(check, COMMANDS))


def test_no_command(attnctl: Attnctl) -> None:
    for words in (
        [],
        ["dance"],
        ["--dance"],
        ["-"],
        [""],
        ["help", "dance"],
        ["models"],
        ["--server", "x"],
        ["x" * 99999],
    ):
        expect_none(faults(attnctl.run(*words), [2]))


def test_no_argument(attnctl: Attnctl) -> None:
    def check(command: Dict[str, Any]) -> List[str]:
        name = command["name"].split()
        run = attnctl.run(*name)
        more = attnctl.run(*words_of(command), "one", "too many", "x")
        # Some take no arguments, and some any number of them.
        open_ended = any(argument.endswith("...") for argument in command["arguments"])
        return faults(run, [2], done=True) + faults(more, [2, 4] if open_ended else [2])

    expect_none(all_faults(check, COMMANDS))


@pytest.mark.parametrize("value", ["", "nobody", "x" * 5000, "../x", "/", "/etc/passwd", "a\nb", "9" * 30])
def test_arguments(attnctl: Attnctl, value: str) -> None:
    def check(command: Dict[str, Any]) -> List[str]:
        name = command["name"].split()
        arguments = [value for argument in command["arguments"] if argument[0] != "["]
        return faults(attnctl.run(*name, *arguments), [1, 2, 4]) if arguments else []

    expect_none(all_faults(check, COMMANDS))


def test_help(attnctl: Attnctl) -> None:
    def check(command: Dict[str, Any]) -> List[str]:
        name = command["name"].split()
        runs = [attnctl.run(*name, "--help"), attnctl.run("help", *name), attnctl.run("-h", *name, "--queries", "many")]
        found = [str(run) for run in runs if run.code != 0 or run.err or run.out != runs[0].out]
        text = runs[0].out.decode()
        found += [f"{name}: no --{flag['name']}" for flag in command["flags"] if f"  --{flag['name']}" not in text]
        return found

    expect_none(all_faults(check, COMMANDS))


def test_a_mistyped_command_is_suggested(attnctl: Attnctl) -> None:
    def check(command: Dict[str, Any]) -> List[str]:
        name = command["name"]
        mistyped = (name[:-2] + name[-1] + name[-2]).split()
        # Of `bias compare` the second word, mistyped, may be a model's name.
        argument = len(mistyped) == 2 and mistyped[0] in names
        runs = [attnctl.run(*mistyped)] + ([attnctl.run(*mistyped, "alibi:8")] if argument else [])
        said = f"did you mean `attnctl {name}`"
        found = faults(runs[0], [4] if argument else [2], said=said)
        return found + [fault for run in runs[1:] for fault in faults(run, [2], said=said)]

    names = {command["name"] for command in COMMANDS}
    expect_none(all_faults(check, COMMANDS))


def test_a_mistyped_flag_is_suggested(attnctl: Attnctl) -> None:
    def check(case: Tuple[Dict[str, Any], Dict[str, Any]]) -> List[str]:
        command, name = case[0], case[1]["name"]
        middle = len(name) // 2
        mistyped = [name[:middle] + "~" + name[middle + 1 :]]
        if "_" in name:
            mistyped.append(name.replace("_", "-"))
        found = []
        for word in mistyped:
            run = attnctl.run(*words_of(command), f"--{word}", "1")
            found += faults(run, [2], said=f'there is no flag "--{word}"\ndid you mean `--{name}`')
        return found

    expect_none(all_faults(check, flags()))


def test_a_flag_of_no_command(attnctl: Attnctl) -> None:
    def check(command: Dict[str, Any]) -> List[str]:
        return faults(attnctl.run(*words_of(command), "--frobnicate"), [2], said=f"`attnctl {command['name']} --help`")

    expect_none(all_faults(check, COMMANDS))


@pytest.mark.parametrize("value", ["", "9" * 30, "x" * 5000, "-1", "nan", "\x1b[31m"])
def test_values(attnctl: Attnctl, value: str) -> None:
    """Whatever is refused by the command line is refused with the flag's name. No value is empty."""

    def check(case: Tuple[Dict[str, Any], Dict[str, Any]]) -> List[str]:
        command, flag = case
        run = attnctl.run(*words_of(command), f"--{flag['name']}={value}")
        said = f"--{flag['name']}" if run.code == 2 else ""
        found = faults(run, [2] if value == "" else [1, 2, 3, 4], said=said, done=value != "")
        if "choices" in flag and run.code != 2:
            found.append(f"{run}expected exit code 2, since there is no such choice")
        return found

    expect_none(all_faults(check, flags()))


def test_no_value(attnctl: Attnctl) -> None:
    def check(case: Tuple[Dict[str, Any], Dict[str, Any]]) -> List[str]:
        command, flag = case
        if flag["value"] == "":
            return []
        name = flag["name"]
        last = attnctl.run(*words_of(command), f"--{name}")
        before = attnctl.run(*words_of(command), f"--{name}", "--timeout", "1s")
        return faults(last, [2], said=f"--{name} needs a value") + faults(before, [2], said=f"--{name} needs a value")

    expect_none(all_faults(check, flags()))


INPUTS: Dict[str, Tuple[Dict[str, Any], int]] = {
    # A name of each: tensors, and the expected exit code.
    "f64": ({"q": ("F64", SHAPE), "k": ("F32", SHAPE), "v": ("F32", SHAPE)}, 1),
    "integers": (dict.fromkeys("qkv", ("I32", SHAPE)), 1),
    "two types": ({"q": ("F32", SHAPE), "k": ("F16", SHAPE), "v": ("F32", SHAPE)}, 1),
    "three axes": (dict.fromkeys("qkv", ("F32", SHAPE[1:])), 1),
    "transposed": ({name: ("F32", [1, 16, 8, 64]) for name in "qkv"}, 1),
    "k transposed": ({"q": ("F32", SHAPE), "k": ("F32", [1, 16, 8, 64]), "v": ("F32", [1, 16, 8, 64])}, 1),
    "dim first": ({name: ("F32", [1, 8, 64, 16]) for name in "q"} | dict.fromkeys("kv", ("F32", SHAPE)), 1),
    "another batch": ({"q": ("F32", SHAPE), "k": ("F32", [2, *SHAPE[1:]]), "v": ("F32", SHAPE)}, 1),
    "empty axis": ({name: ("F32", [1, 8, 0, 64]) for name in "qkv"}, 1),
    "no v": ({"q": ("F32", SHAPE), "k": ("F32", SHAPE)}, 4),
    "no tensors": ({}, 4),
}


def attend(attnctl: Attnctl, path: Path, *more: str, **popen: Any) -> Run:
    return attnctl.run("attend", "--model", "t5-tiny", "--input", str(path), "--output", "never", *more, **popen)


def test_inputs(attnctl: Attnctl, folder: Path) -> None:
    said = {"transposed": "`--layout bshd`", "k transposed": "`--layout bshd`", "no v": 'no tensor "v"; it has k F32'}
    for name, (tensors, code) in INPUTS.items():
        path = safetensors(folder / f"input {name}", tensors)
        expect_none(faults(attend(attnctl, path), [code], said=said.get(name, "")))
    # With the axes in the order that was said, the same tensors are right.
    assert attend(attnctl, folder / "input transposed", "--layout", "bshd").code == 0
    (folder / "never").unlink()
    expect_none(faults(attend(attnctl, folder / "ok", "--layout", "bshd"), [1], said="leave `--layout bshd` out"))
    for keep in (0, 7, 8, 20, 300, 5000):
        path = safetensors(folder / "cut", dict.fromkeys("qkv", ("F32", SHAPE)), keep)
        expect_none(faults(attend(attnctl, path), [1], said="incomplete"))
    (folder / "text").write_text("q, k and v\n" * 20)
    for path, codes in (("absent", [4]), (".", [1]), ("/dev/null", [1]), ("text", [1]), ("ok/ok", [1, 4])):
        expect_none(faults(attend(attnctl, Path(path)), codes))
    assert not (folder / "never").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_an_input_that_may_not_be_read(attnctl: Attnctl, folder: Path) -> None:
    path = safetensors(folder / "secret", dict.fromkeys("qkv", ("F32", SHAPE)))
    path.chmod(0o600)
    for parent in [folder, *folder.parents][:3]:
        parent.chmod(0o755)
    run = attend(attnctl, path, user=65534, group=65534, extra_groups=[])
    if "cannot execute" in run.err or run.code in (126, 127):
        pytest.skip("another user cannot run the program here")
    expect_none(faults(run, [1], said="let yourself read it"))


def test_a_full_disk(attnctl: Attnctl, folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        for command in COMMANDS:
            if set(words_of(command)) & {"nobody", NOT_OPEN, "--output"}:
                continue  # it prints nothing, or does not get that far
            if command["name"] in ("models load", "models unload"):
                continue  # once only
            expect_none(faults(attnctl.run(*words_of(command), stdout=full), [1], said="is the disk full"))
    expect_none(faults(attend(attnctl, folder / "ok", "--output", "/dev/full"), [1], said="is the disk full"))
    small = folder / "small"
    small.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)], check=False).returncode != 0
    ):
        pytest.skip("no small file system can be mounted here")
    try:
        (small / "o").write_text("old")
        expect_none(faults(attend(attnctl, folder / "ok", "--output", "small/o"), [1], said="is the disk full"))
        assert (small / "o").read_text() == "old"
        assert [path.name for path in small.iterdir()] == ["o"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def remote() -> List[Dict[str, Any]]:
    return [command for command in COMMANDS if command["name"].split()[0] not in LOCAL]


def test_no_server(folder: Path) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        addresses = {
            f"unix:{folder}/nobody.sock": "there is no such socket",
            f"127.0.0.1:{taken.getsockname()[1]}": "nothing listens there",
            "no host:1": "there is no host of that name",
        }

        def check(case: Tuple[str, Dict[str, Any]]) -> List[str]:
            run = Attnctl(folder, case[0]).run(*words_of(case[1]), "--timeout", "20s")
            return faults(run, [3], said=f"cannot reach .*{addresses[case[0]]}.*\n.*start it with `attnd")

        expect_none(all_faults(check, ((address, command) for address in addresses for command in remote())))
    for address in ("unix:", "unix:a?b", "unix://host/path", "unix:%"):
        for command in ("info", "health"):
            expect_none(
                faults(Attnctl(folder, address).run(command), [2], said="--server: expected host:port or unix:")
            )


class Refusing(grpc.GenericRpcHandler):
    """Answers every call with this status, and with details as attnd sends them, or without."""

    def __init__(self, code: grpc.StatusCode, message: str, details: bytes) -> None:
        self.code, self.message, self.details = code, message, details

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
            if self.details:
                context.set_trailing_metadata((("grpc-status-details-bin", self.details),))
            context.abort(self.code, self.message)
            return b""

        return grpc.unary_unary_rpc_method_handler(refuse)


@contextmanager
def refusing(code: grpc.StatusCode, message: str, details: bytes) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Refusing(code, message, details),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield address
    server.stop(None)


def failures_at(folder: Path, address: str, codes: List[int], said: str = "", but: str = "") -> List[str]:
    """Of all commands that call a server, each with a whole line."""
    asked = Attnctl(folder, address)
    commands = [command for command in remote() if command["name"] != but]
    return all_faults(lambda command: faults(asked.run(*words_of(command)), codes, said=said), commands)


def test_a_server_that_stops_is_not_called_unreachable(folder: Path) -> None:
    message = "the server is stopping; the call was not begun"
    rpc_status = bytes([8, 14, 18, len(message)]) + message.encode()
    stops = f"attnctl: [^ ]*: {message}\n.*--retry_for"
    with refusing(grpc.StatusCode.UNAVAILABLE, message, rpc_status) as address:
        # Health is another service's, whose answers have no details.
        expect_none(failures_at(folder, address, [3], stops, but="health"))
    with refusing(grpc.StatusCode.UNAVAILABLE, message, b"") as address:
        expect_none(failures_at(folder, address, [3], "cannot reach"))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
def test_another_server(folder: Path, code: grpc.StatusCode) -> None:
    with refusing(code, "", b"") as address:
        expect_none(failures_at(folder, address, [1]))


def test_a_server_that_ends_meanwhile(folder: Path) -> None:
    """Its sockets stay, and nobody listens: what a killed server leaves."""
    left = folder / "left"
    left.mkdir()
    server = Server(left)
    server.process.kill()
    server.process.wait()
    expect_none(failures_at(folder, server.address, [3], "cannot reach"))


def test_a_server_that_is_too_slow(attnctl: Attnctl, server: Server) -> None:
    """A stopped process takes connections and answers none."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        said = "no answer from unix:.* within 300ms\nallow it more time with --timeout"
        expect_none(
            all_faults(lambda c: faults(attnctl.run(*words_of(c), "--timeout", "300ms"), [1], said=said), remote())
        )
    finally:
        server.process.send_signal(signal.SIGCONT)
    while attnctl.run("health").code != 0:
        time.sleep(0)
