"""A session over its own connection to the local socket, in an asyncio event loop."""

from __future__ import annotations

import asyncio
import math
import select
import socket
import time
from typing import TypeVar

from attnd import _duplex, _process
from attnd._duplex import Accept, Make, closed_session
from attnd._local import Keepalive
from attnd._local_session import LocalSession, Wait, Waits
from attnd.errors import Error

T = TypeVar("T")


class AwaitingLocalSession(LocalSession):
    """The event loop watches the socket only while a question waits for its answer."""

    def __init__(self, sock: socket.socket, keepalive: Keepalive) -> None:
        super().__init__(sock, keepalive)
        self._lock = asyncio.Lock()

    async def greet(self, user_agent: str, seconds: float) -> bool:
        try:
            return await self._run(self._greeting(user_agent, seconds))
        except (Error, OSError):
            return False

    async def ask(self, make: Make, accept: Accept[T], seconds: float = math.inf) -> T:
        async with self._lock:
            self._check()
            question = make()
            shared_bytes = self._wire.shared_bytes(question)
            try:
                answer = await self._run(self._asking(question, shared_bytes, accept, time.monotonic() + seconds))
            except BaseException as error:
                raise self._error_of(error) from None
        if answer is None:
            raise question.no_memory()
        return answer

    async def close(self) -> None:
        if _process.forked():
            return
        async with self._lock:
            if self._failure is not None:
                return
            try:
                await self._run(self._closing(_duplex.CLOSE_SECONDS))
            except Error:
                pass
            finally:
                self._end(closed_session())

    async def _run(self, work: Waits[T]) -> T:
        try:
            wait = next(work)
            while True:
                wait = work.send(await self._come(wait))
        except StopIteration as done:
            result: T = done.value
            return result

    async def _come(self, wait: Wait) -> bool:
        loop = asyncio.get_running_loop()
        come: asyncio.Future[bool] = loop.create_future()
        fd = self._socket.fileno()
        reads = wait.events == select.POLLIN
        (loop.add_reader if reads else loop.add_writer)(fd, _settle, come, True)
        timer = loop.call_later(max(0.0, wait.seconds), _settle, come, False) if wait.seconds < math.inf else None
        try:
            return await come
        finally:
            (loop.remove_reader if reads else loop.remove_writer)(fd)
            if timer is not None:
                timer.cancel()


def _settle(come: asyncio.Future[bool], value: bool) -> None:
    if not come.done():
        come.set_result(value)
