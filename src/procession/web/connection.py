"""Connections of strangers: how many there may be, and for how long.

Each user of the machine can connect without the key, and say nothing, or half of a request, for as long as
they like. So a request has to arrive within `PATIENCE_S`, and of the connections on which nobody has shown the key yet,
the oldest goes when there are more than `STRANGERS`: a browser asks at once, and has shown it by then.
"""

import asyncio
from typing import Final, cast

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

ADMIT: Final = "procession.admit"
"""The extension of a request's scope that is called when it has shown the key."""

STRANGERS = 100
"""Connections without a key, at most."""

PATIENCE_S = 10.0
"""How long a request may take to arrive, from its first byte, or from when its connection was made."""


class Connection(H11Protocol):
    """One connection to the page."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.is_known = False
        self.began = self.loop.time()
        self._overdue: asyncio.TimerHandle | None = None
        self._page = self.app
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        page: ASGIApp = self._page
        await page({**scope, "extensions": {ADMIT: self.admit}}, receive, send)

    def admit(self) -> None:
        """Mark the connection as one whose client has the key."""
        self.is_known = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, and let the oldest stranger go if this is one too many."""
        super().connection_made(transport)
        self._wait()
        others = cast("set[object]", self.connections)
        strangers = [one for one in others if isinstance(one, Connection) and one.is_strange]
        if len(strangers) > STRANGERS:
            min(strangers, key=lambda one: one.began).transport.abort()

    @property
    def is_strange(self) -> bool:
        """Whether no request of the connection has had the key."""
        return not self.is_known and not self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._wait()
        else:
            self._wait_no_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._wait_no_more()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer that the bytes received are no request."""
        # An answer to the request before it, or to the one of which this was the rest, is not heard any more.
        if self.cycle is not None:  # pyright: ignore[reportUnnecessaryComparison]
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # another answer is on its way, or has been the last
            self.transport.abort()

    def _wait(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(PATIENCE_S, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
