"""The server, a connection or a session is lost in the middle: the same tokens, or an error that says so."""

from __future__ import annotations

import contextlib
import pathlib
import threading
import time
from typing import Any, Callable

import pytest

import attnd
import attnd.transformers
from conftest import Server
from test_session_recovery import Proxy
from waits import join_all

from .generating import BEAMS, CACHE, GREEDY, NEVER, await_no_sessions, generate, make_decoder, sources
from .libraries import torch

ENOUGH = 1 << 28
WAYS = {"greedy": GREEDY, "beams": BEAMS}
ways = pytest.mark.parametrize("way", WAYS)
doors = pytest.mark.parametrize("door", ["unix", "tcp"])
# All attention is remote; the self attention is from the middle on; it is not.
remote_from = pytest.mark.parametrize("tokens", [0, 20, NEVER])
remote_from_by_doors = pytest.mark.parametrize(
    ("door", "tokens"), [("unix", 0), ("unix", 20), ("unix", NEVER), ("tcp", 0)]
)


class At:
    """Does something when the tokens have a length, and changes nothing."""

    def __init__(self, lengths: Any, action: Callable[[], Any]) -> None:
        self._lengths, self._action = set(lengths), action
        self.done = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if input_ids.shape[1] in self._lengths:
            self._action()
            self.done += 1
        return scores


class Case:
    """A model, what it says, and how it is attached."""

    def __init__(self, family: str = "T5", way: str = "greedy", **options: Any) -> None:
        self.model, self.inputs, self.settings = make_decoder(family), sources(family, 3, 40, "left"), WAYS[way]
        self.expected = generate(self.model, self.inputs, **self.settings)
        self._options = {"min_length": 0, "min_cached_tokens": 0, **options}

    def attached(self, target: Any) -> Any:
        return attnd.transformers.attach(self.model, target, **self._options)

    def generate(self, *processors: Any) -> Any:
        return generate(self.model, self.inputs, **self.settings, logits_processor=list(processors))

    def check(self, *processors: At) -> None:
        """That the tokens are right, and that everything was done."""
        found = self.generate(*processors)
        assert torch.equal(found, self.expected), (found.tolist(), self.expected.tolist())
        assert all(each.done for each in processors)


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    return make_server("--shared_memory")


def await_server(client: attnd.Client) -> None:
    """A channel that has found nobody does not try again at once."""
    deadline = time.monotonic() + 30
    while True:
        try:
            client.server_info()
            return
        except attnd.Unavailable:
            assert time.monotonic() < deadline


def evict_all(client: attnd.Client) -> None:
    infos = client.list_sessions()
    assert infos
    for info in infos:
        client.evict_session(info.id)


@remote_from_by_doors
@ways
def test_a_restart_changes_no_token(server: Server, door: str, way: str, tokens: int) -> None:
    case = Case(way=way, min_cached_tokens=tokens, replay_bytes=ENOUGH)
    with case.attached(getattr(server, door)):
        case.check(At([3], server.restart))
        case.check(At([2, 7, 8, 12], server.restart))
        with attnd.Client(server.unix) as client:
            await_no_sessions(client)


@pytest.mark.parametrize("family", ["umT5", "Switch", "UDOP", "LongT5, global"])
def test_a_restart_with_other_families(server: Server, family: str) -> None:
    for way in WAYS:
        case = Case(family, way, replay_bytes=ENOUGH)
        with case.attached(server.unix):
            case.check(At([2, 9], server.restart))


@remote_from_by_doors
@ways
def test_a_restart_of_a_server_that_has_the_model(
    make_server: Callable[..., Server], tmp_path: pathlib.Path, door: str, way: str, tokens: int
) -> None:
    """Its bias tables are there after it, without an upload."""
    case = Case(way=way, min_cached_tokens=tokens, replay_bytes=ENOUGH)
    case.model.save_pretrained(tmp_path / "root" / "it")
    server = make_server("--shared_memory", f"--model_root={tmp_path / 'root'}")
    with case.attached(getattr(server, door)) as handle:
        assert all(not place.uploaded for place in handle.tables().values())
        case.check(At([3], server.restart))
        case.check(At([2, 7, 8], server.restart))


@remote_from_by_doors
def test_without_a_log_a_restart_is_an_error(server: Server, door: str, tokens: int) -> None:
    case = Case(min_cached_tokens=tokens)
    with case.attached(getattr(server, door)):
        for _ in range(2):
            with pytest.raises(attnd.Unavailable):
                case.generate(At([9], server.restart))
            case.check()
        with attnd.Client(server.unix) as client:
            await_no_sessions(client)


@remote_from_by_doors
@ways
def test_eviction_changes_no_token(server: Server, door: str, way: str, tokens: int) -> None:
    case = Case(way=way, min_cached_tokens=tokens, replay_bytes=ENOUGH)
    with attnd.Client(server.unix) as client, case.attached(getattr(server, door)):
        case.check(At([4], lambda: evict_all(client)))
        case.check(At(range(2, 13), lambda: evict_all(client)))
        await_no_sessions(client)


@remote_from_by_doors
def test_without_a_log_eviction_is_an_error(server: Server, door: str, tokens: int) -> None:
    case = Case(way="beams", min_cached_tokens=tokens)
    with attnd.Client(server.unix) as client, case.attached(getattr(server, door)):
        for _ in range(2):
            with pytest.raises(attnd.Aborted) as caught:
                case.generate(At([9], lambda: evict_all(client)))
            assert caught.value.field == "session"
            case.check()
        await_no_sessions(client)


@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("log", [ENOUGH, 0])
def test_one_of_the_sessions_is_evicted(server: Server, log: int, which: str) -> None:
    case = Case(way="beams", replay_bytes=log)
    with attnd.Client(server.unix) as client, case.attached(client):

        def evict() -> None:
            infos = client.list_sessions()
            client.evict_session((infos[0] if which == "first" else infos[-1]).id)

        if log:
            case.check(At([5], evict))
        else:
            with pytest.raises(attnd.Aborted):
                case.generate(At([5], evict))
        case.check()


def test_a_log_that_is_too_small_is_an_error_and_no_wrong_token(server: Server) -> None:
    case = Case(replay_bytes=1000)
    with case.attached(server.unix):
        case.check()
        with pytest.raises(attnd.Unavailable):
            case.generate(At([9], server.restart))
        case.check()


@pytest.mark.parametrize("log", [ENOUGH, 0])
def test_the_server_stays_away(server: Server, log: int) -> None:
    case = Case(replay_bytes=log)
    with attnd.Client(server.unix, retry=attnd.Retry(max_time=0.5)) as client, case.attached(client):
        with pytest.raises(attnd.Unavailable):
            case.generate(At([5], server.kill))
        with pytest.raises(attnd.Unavailable):
            case.generate()
        server.restart()
        await_server(client)
        case.check()
    # Without a server, and detached, the model is as it was.
    server.kill()
    case.check()


@ways
def test_the_server_comes_back_later(server: Server, way: str) -> None:
    case = Case(way=way, replay_bytes=ENOUGH)
    back = threading.Timer(0.7, server.restart)

    def go_away() -> None:
        server.kill()
        back.start()

    with case.attached(server.unix):
        case.check(At([5], go_away))
    join_all([back])


@ways
def test_a_restart_between_two_calls_costs_nothing(server: Server, way: str) -> None:
    case = Case(way=way)
    with case.attached(server.unix):
        case.check()
        server.restart()
        case.check()


@ways
@doors
def test_a_server_that_stops_lets_generation_end(make_server: Callable[..., Server], door: str, way: str) -> None:
    server = make_server("--shared_memory", "--drain_seconds=30")
    case = Case(way=way)
    with case.attached(getattr(server, door)):
        case.check(At([3], server.process.terminate))
    assert server.process.wait(timeout=20) == 0, server.log.read_text()


@remote_from
@pytest.mark.parametrize("log", [ENOUGH, 0])
def test_a_server_that_stops_too_early(make_server: Callable[..., Server], log: int, tokens: int) -> None:
    server = make_server("--shared_memory", "--drain_seconds=0.2")
    case = Case(replay_bytes=log, min_cached_tokens=tokens)

    def replaced() -> None:
        server.stop()
        server.restart()

    with case.attached(server.unix):
        if log:
            case.check(At([9], replaced))
        else:
            with pytest.raises(attnd.Unavailable):
                case.generate(At([9], replaced))
        case.check()


def test_a_rolling_restart(make_server: Callable[..., Server]) -> None:
    """The sessions are told to go, while generation goes on, and are opened at the next server."""
    server = make_server("--shared_memory", "--drain_seconds=0.3")
    case = Case(way="beams", replay_bytes=ENOUGH)

    def work() -> None:
        codes.append(server.stop())
        server.restart()

    codes: list[int] = []
    thread = threading.Thread(target=work)
    with case.attached(server.unix):
        case.check(At([2], thread.start), At(range(2, 11), lambda: time.sleep(0.1)))
        for _ in range(3):
            case.check()
        join_all([thread])
        case.check()
    assert codes == [0]


@pytest.mark.parametrize("log", [ENOUGH, 0])
def test_a_connection_is_cut(server: Server, log: int) -> None:
    case = Case(way="beams", replay_bytes=log)
    with contextlib.closing(Proxy(server.tcp)) as proxy, case.attached(proxy.target):
        if log:
            case.check(At([2, 5, 11], proxy.cut))
        else:
            with pytest.raises(attnd.Unavailable):
                case.generate(At([5], proxy.cut))
        case.check()


@remote_from
@pytest.mark.parametrize("lose", ["restart", "evict"])
@pytest.mark.parametrize("log", [ENOUGH, 0])
def test_a_cache_that_waits_for_its_next_call(server: Server, log: int, lose: str, tokens: int) -> None:
    case = Case(min_cached_tokens=tokens, replay_bytes=log)
    count = 2 * GREEDY["max_new_tokens"]
    longer = {**GREEDY, "max_new_tokens": count, "min_new_tokens": count}
    expected = generate(case.model, case.inputs, **longer)
    with attnd.Client(server.unix) as client, case.attached(server.unix):
        out = generate(case.model, case.inputs, **GREEDY, return_dict_in_generate=True)
        if lose == "restart":
            server.restart()
        else:
            evict_all(client)
        more = {**case.inputs, "decoder_input_ids": out.sequences, CACHE: getattr(out, CACHE)}
        more["decoder_attention_mask"] = torch.ones_like(out.sequences)
        try:
            found = generate(case.model, more, **GREEDY)
        except (attnd.Unavailable, attnd.Aborted):
            assert not log
        else:
            assert torch.equal(found, expected)
        case.check()
