"""`attnctl sessions` against a real server, with sessions that the Python client opens."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest
from attnctl_runs import Attnctl, faults

import attnd

ATTND = os.environ["ATTND_BINARY"]
LAYERS = [attnd.SelfLayer(heads=8, head_dim=64), attnd.CrossLayer(heads=8, head_dim=64)]
# The same for `sessions plan`.
PLAN = ["--rows=4", "--self_layers=1", "--cross_layers=1", "--heads=8", "--head_dim=64"]
PLAN += ["--max_tokens=128", "--max_source_tokens=64"]


@contextmanager
def server(folder: Path, *flags: str) -> Iterator[str]:
    address = f"unix:{folder}/attnd.sock"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([ATTND, f"--listen={address}", *flags], stderr=log, stdout=log)
    try:
        while Attnctl(folder, address).run("info").code != 0:
            assert process.poll() is None, (folder / "log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with server(tmp_path) as at:
        yield at


def opened(client: attnd.Client, rows: int = 4) -> attnd.Session:
    return client.session(LAYERS, "t5-tiny", rows=rows, sources=1, max_tokens=128, max_source_tokens=64)


def listed(attnctl: Attnctl) -> List[Dict[str, Any]]:
    run = attnctl.run("sessions", "list", "--json")
    assert run.code == 0, run
    sessions: List[Dict[str, Any]] = json.loads(run.out)["sessions"]
    return sessions


def test_none_is_open(tmp_path: Path, address: str) -> None:
    attnctl = Attnctl(tmp_path, address)
    assert attnctl.run("sessions", "list").out == b"no session is open\n"
    assert listed(attnctl) == []
    assert attnctl.run("sessions", "list", "--ids").out == b""


def test_list_and_show(tmp_path: Path, address: str) -> None:
    attnctl = Attnctl(tmp_path, address)
    with attnd.Client(address) as client, opened(client) as session, opened(client, 2):
        q, k, v = (np.ones((4, 8, 1, 64), np.float32) for _ in range(3))
        session.attend(0, q, k, v)
        first, second = listed(attnctl)
        assert first["model"] == "t5-tiny"
        assert (first["rows"], second["rows"]) == (4, 2)
        assert (first["sources"], first["layers"], first["steps"], second["steps"]) == (1, 2, 1, 0)
        assert first["reserved_bytes"] == session.reserved_bytes
        assert 0 < first["used_bytes"] <= first["reserved_bytes"]
        assert first["age_seconds"] >= first["idle_seconds"] >= 0
        titles, *lines = attnctl.run("sessions", "list").out.decode().splitlines()
        assert titles.split()[:4] == ["ID", "PEER", "MODEL", "ROWS"]
        assert [line.split()[0] for line in lines] == [str(first["id"]), str(second["id"])]
        assert "t5-tiny@1" in lines[0]
        ids = attnctl.run("sessions", "list", "--ids").out.decode().split()
        assert ids == [str(first["id"]), str(second["id"])]
        shown = attnctl.run("sessions", "show", ids[1])
        assert shown.code == 0, shown
        assert f"session {ids[1]}\n" in shown.out.decode()
        assert f"reserved  {second['reserved_bytes']} bytes" in shown.out.decode()
        assert json.loads(attnctl.run("sessions", "show", ids[0], "--json").out)["steps"] == 1
        info = json.loads(attnctl.run("info", "--json").out)
        assert info["sessions"] == {"open": 2, "evicted": 0, "max_sessions": 1024, "max_peer_sessions": 256}


def test_one_that_is_not_open(tmp_path: Path, address: str) -> None:
    attnctl = Attnctl(tmp_path, address)
    for command in ("show", "evict"):
        run = attnctl.run("sessions", command, "9")
        assert not faults(run, [4], said="ID: expected the number of an open session, got 9\n.*sessions list"), run
        assert run.out == b""


def test_evict_ends_those_that_are_there_and_no_other(tmp_path: Path, address: str) -> None:
    attnctl = Attnctl(tmp_path, address)
    with attnd.Client(address) as client:
        kept, evicted, other = opened(client), opened(client), opened(client)
        ids = [str(session["id"]) for session in listed(attnctl)]
        # Nothing is done where one of them is no number.
        assert attnctl.run("sessions", "evict", ids[1], "x").code == 2
        assert len(listed(attnctl)) == 3
        run = attnctl.run("sessions", "evict", ids[1], "999", ids[2], ids[1])
        assert not faults(run, [4], said="got 999\n"), run
        assert run.out.decode() == f"evicted session {ids[1]}\nevicted session {ids[2]}\n"
        for session in (evicted, other):
            with pytest.raises(attnd.Error, match="evicted"):
                session.append(0, *(np.ones((4, 8, 1, 64), np.float32) for _ in range(2)))
        kept.append(0, *(np.ones((4, 8, 1, 64), np.float32) for _ in range(2)))
        assert [str(session["id"]) for session in listed(attnctl)] == ids[:1]
        as_json = attnctl.run("sessions", "evict", "--json", ids[0], "999")
        assert as_json.code == 4
        assert json.loads(as_json.out) == {"evicted": [int(ids[0])], "not_found": [999]}


def test_plan_is_what_is_reserved(tmp_path: Path, address: str) -> None:
    attnctl = Attnctl(tmp_path, address)
    with attnd.Client(address) as client:
        before = json.loads(attnctl.run("sessions", "plan", *PLAN, "--json").out)
        with opened(client) as session:
            assert before["reserved_bytes"] == session.reserved_bytes
            now = json.loads(attnctl.run("sessions", "plan", *PLAN, "--json").out)
            assert now["budget"]["used_bytes"] == before["budget"]["used_bytes"] + session.reserved_bytes
            assert now["budget"]["open_sessions"] == 1
            text = attnctl.run("sessions", "plan", *PLAN).out.decode()
            assert f"reserves {session.reserved_bytes} bytes" in text
            assert "open there: 1 session, of at most 1024 (256 of one caller)" in text


def test_as_many_fit_as_the_plan_says(tmp_path: Path) -> None:
    with server(tmp_path, "--max_inflight_bytes=64MiB") as at, attnd.Client(at, retry=None) as client:
        plan = json.loads(Attnctl(tmp_path, at).run("sessions", "plan", *PLAN, "--json").out)
        assert plan["budget"]["total_bytes"] == 64 << 20
        sessions = [opened(client) for _ in range(plan["fits"]["one_caller"])]
        assert sessions
        with pytest.raises(attnd.Error, match="for one peer"):
            opened(client)
        no_server = Attnctl(tmp_path, "unix:/nobody").run("sessions", "plan", *PLAN, "--json", "--budget", "64MiB")
        assert json.loads(no_server.out)["fits"] == plan["fits"]


def test_plan_without_a_server(tmp_path: Path) -> None:
    run = Attnctl(tmp_path, f"unix:{tmp_path}/nobody").run("sessions", "plan", *PLAN)
    assert not faults(run, [3], said="cannot reach .*\n.*; `--budget SIZE` plans without a server"), run


def test_plan_for_a_server_that_would_refuse(tmp_path: Path) -> None:
    with server(tmp_path, "--max_head_dim=32") as at:
        run = Attnctl(tmp_path, at).run("sessions", "plan", *PLAN)
        said = "--head_dim: expected at most 32 \\(attnd's --max_head_dim there\\), got 64"
        assert not faults(run, [1], said=said), run


def test_the_page_shows_what_is_printed(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sessions.md").read_text()
    block = page[page.index("    $ attnctl sessions plan") :].split("\n\nWithout")[0]
    lines = [line[4:] for line in block.splitlines()]
    command, shown = f"{lines[0]}{lines[1]}".replace("\\", ""), lines[2:]
    run = Attnctl(tmp_path, f"unix:{tmp_path}/nobody").run(*command.split()[2:])
    assert run.out.decode().splitlines() == shown
