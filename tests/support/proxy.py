"""A TCP relay on loopback that can be cut, slowed down and made to swallow what passes: a network, at a test's command."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import urllib.parse
from typing import Any

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CHUNK = 256 * 1024
PATIENCE = 30.0


class Proxy:
    """
    Relays connections to the server of *url*; ``url`` is the same address by way of here.

    What a connection loses in a black hole it has lost: it stays silent after `restore` too, as one does whose flow a
    firewall has dropped, and neither side hears of the other's end, until `cut` resets it. ``swallowed`` counts bytes, requests and answers.
    """

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._upstream = (parts.hostname, parts.port)
        self.swallowed = {"requests": 0, "answers": 0}
        self.passed = {"requests": 0, "answers": 0}
        self._swallowing: frozenset[str] = frozenset()
        self._delay = 0.0
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._do(self._listen())
        user = f"{parts.netloc.rpartition('@')[0]}@" if parts.username else ""
        self.url = parts._replace(netloc=f"{user}127.0.0.1:{self.port}").geturl()

    # --- what a network does ------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Reset every connection and refuse new ones."""
        self._do(self._refuse())

    def delay(self, seconds: float) -> None:
        """Hold all that passes, either way, for so long."""
        self._delay = seconds

    def black_hole(self, *, answers_only: bool = False) -> None:
        """Take everything and pass nothing on; or deliver requests and swallow their answers."""
        self._swallowing = frozenset({"answers"} if answers_only else {"requests", "answers"})

    def restore(self) -> None:
        """Be a good network again, for connections that have lost nothing and for new ones."""
        self._swallowing = frozenset()
        self._delay = 0.0
        if self._server is None:
            self._do(self._listen())

    def close(self) -> None:
        self._do(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def __enter__(self) -> Proxy:  # noqa: PYI034 - Self is 3.11's
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the relay, in a loop of its own --------------------------------------------------------------------------------

    def _do(self, act: Any) -> None:
        asyncio.run_coroutine_threadsafe(act, self._loop).result(PATIENCE)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _cut(self) -> None:
        for link in list(self._links):
            link.reset()
        tasks = [task for link in list(self._links) for task in link.tasks]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, writer)
        self._links.add(link)
        link.tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await link.relay(reader, self._upstream)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            link.end()
            self._links.discard(link)


class _Link:
    """One connection and the one that it leads to."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self._proxy = proxy
        self._writers = [client]
        self._lost: set[str] = set()

    async def relay(self, reader: asyncio.StreamReader, upstream: Any) -> None:
        while "requests" in self._proxy._swallowing:  # an address that takes connections and does nothing
            lost = await reader.read(_CHUNK)
            if not lost:
                return
            self._lost |= {"requests", "answers"}
            self._proxy.swallowed["requests"] += len(lost)
        if self._lost:
            await self._swallow(reader, "requests")
            return
        answers, requests = await asyncio.open_connection(*upstream)
        self._writers.append(requests)
        there = asyncio.ensure_future(self._pass(reader, requests, "requests"))
        back = asyncio.ensure_future(self._pass(answers, self._writers[0], "answers"))
        self.tasks += [there, back]
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        if self._lost:
            await asyncio.Event().wait()  # the end of one side is lost as well: the other never hears of it
        for writer in self._writers:  # what is under way is delivered
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self._proxy._delay:
                    await asyncio.sleep(self._proxy._delay)
                if self._is_lost(way):
                    self._proxy.swallowed[way] += len(chunk)
                    continue
                self._proxy.passed[way] += len(chunk)
                writer.write(chunk)
                await writer.drain()
        self._is_lost(way)

    def _is_lost(self, way: str) -> bool:
        if way in self._proxy._swallowing:
            self._lost.add(way)
        return way in self._lost

    async def _swallow(self, reader: asyncio.StreamReader, way: str) -> None:
        while lost := await reader.read(_CHUNK):
            self._proxy.swallowed[way] += len(lost)

    def end(self) -> None:
        for task in self.tasks[1:]:
            task.cancel()
        for writer in self._writers:
            writer.close()

    def reset(self) -> None:
        for writer in self._writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()
        for task in self.tasks:
            task.cancel()
