"""What strangers meet first. A page on 127.0.0.1 is in reach of every site that its user has open in the browser.

- A name that leads to 127.0.0.1 by somebody else's DNS ("rebinding") is told by the Host header.
- A request that another site's script or form makes is told by the Origin header; and a change needs a token, too,
  which only our own pages have.
- Another user of the machine has no key: see `lock`.
- Whatever text got past the escaping could not become a script: the content security policy allows only our files.
"""

import ipaddress
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from procession.web.connection import ADMIT
from procession.web.lock import Lock

LONGEST = 8_000
"""Bytes of an address's path and query, at most."""

SAFE = ("GET", "HEAD")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Under "no-referrer" a browser would not say where a form of ours comes from.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Refuses what does not come from the user, and gives every answer the headers that browsers obey.

    A request that has the `key` is the user's. `names` are the names of the server that the Host header may have. With
    `any_address`, it may have any address in numbers, too, which no DNS can make up.
    """

    def __init__(self, app: Starlette, key: str, names: Iterable[str], *, any_address: bool = False) -> None:
        self.app: Final = app
        self._lock = Lock(key)
        self._names = {name.strip("[]").lower() for name in names}
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer: ASGIApp | None = self._refusal(scope)
        if answer is None:
            request = Request(scope)
            if self._lock.is_known(request):
                scope.get("extensions", {}).get(ADMIT, bool)()
            answer = self._lock.answer(request) or self.app
        await answer(scope, receive, sealed)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        refused = self._refused(scope)
        return refused and PlainTextResponse(f"{refused[0].phrase}: {refused[1]}\n", refused[0])

    def _refused(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            return HTTPStatus.MISDIRECTED_REQUEST, "this is not the address of this page; use the one it was given"
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST:
            return HTTPStatus.REQUEST_URI_TOO_LONG, f"an address has at most {LONGEST:,} bytes here"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return HTTPStatus.FORBIDDEN, "the request comes from another site"
        if scope["method"] not in SAFE and origin is None:
            return HTTPStatus.FORBIDDEN, "the request does not say where it comes from (Origin)"
        return None

    def _is_ours(self, host: str) -> bool:
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdecimal():
            name = host
        name = name.strip("[]").lower()
        return name in self._names or (self._any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
