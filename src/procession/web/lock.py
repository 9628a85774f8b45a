"""The key to the page. Every user of the machine reaches 127.0.0.1; the key stands in the owner's terminal.

    /run/3?key=… ──303, and a cookie──▶ /run/3 ──the cookie──▶ the page

So the key is in the address once, and not in what the browser keeps of where it has been.
"""

import secrets
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

PARAMETER: Final = "key"

_REFUSED = (
    "this page has a key. Open the address that `procession ui` has printed in its terminal; it is another "
    "one each time that is started. If the page was open before, and a link of another site has led you here, go to "
    "the address bar and press Enter."
)

# Without a style sheet, as strangers get no file of ours.
_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Forbidden · Procession</title>
</head>
<body>
<main>
<h1>Forbidden</h1>
<p>{_REFUSED[0].upper()}{_REFUSED[1:]}</p>
</main>
</body>
</html>
"""


def new_key() -> str:
    """Return a key that nobody can guess."""
    return secrets.token_urlsafe(32)


class Lock:
    """Lets requests in that have the key: in the address at first, and in a cookie from then on."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def answer(self, request: Request) -> Response | None:
        """Return the answer to a request that may not go on, or not yet; `None` for one that may."""
        if self._has_key(request):
            return self._admission(request)
        if self._has_cookie(request):
            return None
        if "text/html" in request.headers.get("accept", ""):  # a browser, with somebody before it
            return HTMLResponse(_PAGE, HTTPStatus.FORBIDDEN)
        return PlainTextResponse(f"Forbidden: {_REFUSED}\n", HTTPStatus.FORBIDDEN)

    def is_known(self, request: Request) -> bool:
        """Return whether a request has the key, in one way or the other."""
        return self._has_key(request) or self._has_cookie(request)

    def _has_key(self, request: Request) -> bool:
        return request.method in ("GET", "HEAD") and self._fits(request.query_params.get(PARAMETER))

    def _has_cookie(self, request: Request) -> bool:
        return self._fits(request.cookies.get(_name(request)))

    def _admission(self, request: Request) -> Response:
        rest = urlencode([item for item in request.query_params.multi_items() if item[0] != PARAMETER])
        # One slash: what begins with two leads to another site.
        path = "/" + quote(request.scope["path"].lstrip("/"))
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, HTTPStatus.SEE_OTHER)
        answer.set_cookie(_name(request), self._key.decode(), path="/", httponly=True, samesite="strict")
        return answer

    def _fits(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode(), self._key)


def _name(request: Request) -> str:
    """Return the name of the cookie. A browser sends it to every port of a name, and each may be of another page."""
    # As the browser has it, for a tunnel may lead here. What is no port has been refused, or stands for the usual one.
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"procession-{port if port.isdecimal() else 80}"
