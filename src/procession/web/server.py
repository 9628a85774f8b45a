"""Serving the page."""

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType

import uvicorn

from procession.errors import JournalError
from procession.journal import Journal
from procession.web.app import LOCAL, application
from procession.web.connection import Connection
from procession.web.live import Live
from procession.web.lock import PARAMETER, new_key

_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104  # what is only compared

_AT_ONCE = 50
"""Connections that are accepted in one go: fewer than strangers are let in, so that none is pushed out unheard."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, live: Live) -> None:
        super().__init__(config)
        self._live = live

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Streams would go on for ever, and the server waits for them.
        self._live.close()
        super().handle_exit(sig, frame)


def serve(where: str, host: str, port: int, say: Callable[[str], object]) -> None:
    """Serve the page of a journal until Ctrl-C or SIGTERM. With `port` 0, a free port is taken.

    `say` is called with text for the user who started the server.

    Raises `JournalError` for a journal that cannot be read (one that is not there yet may come), and `OSError` for an
    address that cannot be listened on.
    """
    with closing(Journal(where)) as journal:
        named = journal.database.where  # without a password
        try:
            journal.runs(limit=1)
        except JournalError:
            if journal.database.sqlite and not Path(where).exists():
                say(f"There is nothing at {named} yet. The page shows runs as soon as it is there.")
            else:
                raise
        with closing(_listening(host, port)) as listening:
            port = listening.getsockname()[1]
            if host not in LOCAL:
                say("Everyone who has this address sees, cancels and answers the runs; and it travels in the clear.")
            shown, key = f"[{host}]" if ":" in host else host, new_key()
            say(f"Runs of {named}: http://{shown}:{port}/?{PARAMETER}={key} (Ctrl-C ends it)")
            app = application(journal, key, [*LOCAL, host], any_address=host in _EVERYWHERE)
            config = uvicorn.Config(
                app,
                http=Connection,
                backlog=_AT_ONCE,
                lifespan="off",
                ws="none",
                # Shown where logs are shown; and of what strangers send that is no request, nothing is said.
                log_config=None,
                log_level="error",
                access_log=False,
                # Nothing stands in between: the address of a client is its own.
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
            _Server(config, app.app.state.live).run([listening])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_AT_ONCE)  # now, so that who is told the address can connect to it
    except BaseException:  # a host that is no name at all is a `UnicodeError`
        listening.close()
        raise
    return listening
