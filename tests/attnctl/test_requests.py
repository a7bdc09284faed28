"""How often a command asks the server."""

from __future__ import annotations

from collections import Counter
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import grpc
import pytest
from attnctl_runs import Attnctl


class Counting(grpc.GenericRpcHandler):
    """Answers each method with its next message, the last one again and again, and counts the calls."""

    def __init__(self, answers: Dict[str, List[bytes]]) -> None:
        self.answers = answers
        self.calls: Counter[str] = Counter()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method.rsplit("/", 1)[1]

        def answer(_request: bytes, _context: grpc.ServicerContext) -> bytes:
            answers = self.answers.get(method, [b""])
            self.calls[method] += 1
            return answers[min(self.calls[method], len(answers)) - 1]

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def counting(answers: Dict[str, List[bytes]]) -> Iterator[Tuple[str, Counting]]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = Counting(answers)
    server.add_generic_rpc_handlers((handler,))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield address, handler
    server.stop(None)


NEXT_PAGE = bytes([18, 1]) + b"2"  # ListModelsResponse.next_page_token


@pytest.mark.parametrize("pages", [1, 2, 3])
@pytest.mark.parametrize("flags", [[], ["--json"], ["--names"]])
def test_models_list_asks_for_each_page_once(tmp_path: Path, pages: int, flags: List[str]) -> None:
    with counting({"ListModels": [NEXT_PAGE] * (pages - 1) + [b""]}) as (address, handler):
        run = Attnctl(tmp_path, address).run("models", "list", *flags)
        assert run.code == 0, run
        assert handler.calls == {"ListModels": pages}


ONCE = [
    (["models", "show", "x"], "GetModel"),
    (["models", "reload", "x"], "ReloadModel"),
    (["models", "unload", "x"], "UnloadModel"),
    (["models", "load", "x"], "LoadModel"),
    (["info"], "GetServerInfo"),
    (["sessions", "list"], "ListSessions"),
    (["sessions", "show", "7"], "ListSessions"),
    (["sessions", "evict", "7", "7"], "EvictSession"),
    (["sessions", "plan", "--self_layers=1", "--max_tokens=9", "--kv_heads=1", "--head_dim=8"], "GetServerInfo"),
]


@pytest.mark.parametrize(("words", "method"), ONCE)
def test_one_call_is_enough(tmp_path: Path, words: List[str], method: str) -> None:
    with counting({}) as (address, handler):
        Attnctl(tmp_path, address).run(*words)
        assert handler.calls == {method: 1}


def test_a_budget_asks_nobody(tmp_path: Path) -> None:
    with counting({}) as (address, handler):
        run = Attnctl(tmp_path, address).run(*ONCE[-1][0], "--budget=1GiB")
        assert run.code == 0, run
        assert not handler.calls
