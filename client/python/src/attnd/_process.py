"""Detects whether this process was forked from one that has made a client.

gRPC's threads do not exist in a forked child, so a call there would hang. As in the C++ client, a process may fork
before it makes its first client, or fork and exec at any time. In a child that was forked later every method but close
fails at once; the parent's clients keep working.
"""

from __future__ import annotations

import os
from typing import Dict

from attnd.errors import FailedPrecondition

# Process ids: "first user" made the first client; "child" is this process, if it was forked from that one.
_state: Dict[str, int] = {}


def use() -> None:
    """Records that this process makes a client. Raises FailedPrecondition in a forked child."""
    check()
    _state.setdefault("first user", os.getpid())


def check() -> None:
    """Raises FailedPrecondition in a child that was forked after the first client was made."""
    if forked():
        raise FailedPrecondition.of(
            "process",
            f"the one that made the first client ({_state['first user']}), or one started by exec "
            "(multiprocessing's start methods spawn and forkserver)",
            f"{os.getpid()}, forked from it",
        )


def forked() -> bool:
    """Whether this is a child that was forked after the first client was made."""
    return "child" in _state


def _after_fork_in_child() -> None:
    if "first user" in _state:
        _state["child"] = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
