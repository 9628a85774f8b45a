"""Fetch many pages from a server that fails now and then: retries, timeouts, and failures that stay in their place.

    python examples/fetch_flaky.py

The server is a real one, on this machine, and misbehaves by a fixed rule, so that every run is alike: some pages
answer 503 once or twice before they answer well, some hang the first time, and a few are never found.
"""

import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from procession import Process, task

PAGES = 60


class Flaky(BaseHTTPRequestHandler):
    """Answers with the page's number, if it is in the mood."""

    asked: ClassVar[Counter[str]] = Counter()
    lock = threading.Lock()

    def do_GET(self) -> None:
        """Answer one request."""
        with self.lock:
            self.asked[self.path] += 1
            nth = self.asked[self.path]
        page = int(self.path.rpartition("/")[2])
        if page % 20 == 0:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif page % 5 == 0 and nth in (1, 2):
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
        elif page % 17 == 0 and nth == 1:
            time.sleep(1)  # longer than the fetch waits
        else:
            body = f"page {page}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


class Server(ThreadingHTTPServer):
    """Has room for all who knock at once, and leaves nobody's thread behind."""

    request_queue_size = PAGES
    daemon_threads = True


@contextmanager
def server() -> Generator[str, None, None]:
    """Serve on a free port of this machine until the `with` ends; give the address."""
    Flaky.asked.clear()
    with Server(("127.0.0.1", 0), Flaky) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{serving.server_port}"
        finally:
            serving.shutdown()
            thread.join()


class Unavailable(Exception):
    """The page may be there later."""


# The socket's own timeout is the shorter one: a thread that waits for a socket cannot be stopped from outside, and
# the task's timeout would leave it behind. It is the net below, for a server that sends a byte now and then.
@task(retries=4, timeout=5.0, retry_on=Unavailable, name="fetch")
def fetch(url: str) -> str:
    """Return a page; raise `Unavailable` where it is worth trying again, `HTTPError` where it is not."""
    try:
        with urlopen(url, timeout=0.3) as response:
            return bytes(response.read()).decode()
    except HTTPError as error:
        with error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        raise Unavailable(f"{url}: {error}") from None
    except (TimeoutError, URLError) as error:
        raise Unavailable(f"{url}: {error}") from error


def build(address: str) -> Process:
    """Return the process: one task a page, all at once, each failure in its own place of the results."""
    process = Process("fetch_flaky", strategy="parallel", max_workers=16, on_error="return")
    for page in range(1, PAGES + 1):
        process.add_task(fetch, f"{address}/{page}")
    return process


def main() -> None:
    """Fetch all pages and say how it went."""
    with server() as address:
        process = build(address)
        results = process.execute()
    run = process.last_run
    assert run is not None
    fetched = [result for result in results if isinstance(result, str)]
    attempts = Counter(outcome.attempts for outcome in run.outcomes)
    print(f"{len(fetched)} of {len(results)} pages fetched, {len(results) - len(fetched)} not found")
    print(", ".join(f"{count} after {number} attempts" for number, count in sorted(attempts.items())))
    print(run.summary(limit=6))


if __name__ == "__main__":
    main()
