"""A batch against a service: 2,000 prompts at the rate it allows, parsed, written as they come, and each paid for once.

    pip install "procession[journal]"
    python examples/prompts.py                            kill it whenever you like, and start it again: it goes on
    python examples/prompts.py --prompts 200 --rate 50    fewer, and slower

    prompts.txt ──▶ ask, on threads ──▶ parse, on worker processes ──▶ write ──▶ answers.jsonl
                       ▲
                       ▼
                    service ──▶ bill.txt

Answers and rows are recorded in prompts.db as they come, so no prompt whose answer is there is asked again. Rows are
written in the order of the prompts. A start after a kill writes the file anew, the recorded rows first: so each prompt
has one line in it, however often that happens.
"""

import argparse
import json
import threading
import time
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, cycle
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from procession import Limit, Process, RetryAfter, stream, task, unrecorded

Row = dict[str, str]

# The stages


class Client:
    """Posts prompts to the service."""

    def __init__(self, address: str) -> None:
        self.address = address

    def post(self, prompt: str) -> str:
        """Return the answer; raise `HTTPError` where there is none."""
        with urlopen(self.address, data=prompt.encode(), timeout=30) as answer:
            return bytes(answer.read()).decode()


def ask(prompt: str, *, client: Client) -> str:
    """Return the answer to a prompt. A pause that the service wants holds for all calls."""
    try:
        return client.post(prompt)
    except HTTPError as error:
        with error:
            if error.code == HTTPStatus.TOO_MANY_REQUESTS:
                raise RetryAfter(float(error.headers["Retry-After"])) from None
            raise


@task(executor="processes", keep=False)
def parse(answer: str) -> Row:
    """Return the row that an answer has in it. To parse is to compute, at which threads would take turns."""
    row: Row = json.loads(answer[answer.index("{") : answer.rindex("}") + 1])
    return row


def write(rows: Iterable[Row], path: Path) -> int:
    """Write each row as soon as it is there, and return how many there were."""
    written = 0
    with path.open("w") as file:
        for row in rows:
            print(json.dumps(row), file=file, flush=True)
            written += 1
    return written


def build(prompts: list[str], client: Client, rate: int, path: Path) -> Process:
    """Return the process: three stages, through which the prompts go one by one."""
    # A tenth longer than the service's second, as not every call takes the same time to get there.
    limit = Limit("service", at_once=32, rate=rate, per=1.1)
    limited = task(limit=limit, retries=5, retry_on=OSError, keep=False)
    process = Process("prompts", "parallel", max_workers=40)
    answers = process.map(limited(ask), prompts, constants={"client": unrecorded(client)})
    rows = process.map(parse, answers)
    process.task(write, stream(rows), path)
    return process


# The service, which is somebody else's: it takes a while, refuses what comes too quickly, fails now and then, and bills


def serve(rate: int, bill: Path) -> str:
    """Start a service that accepts `rate` calls in any second, and return its address."""
    lock, calls, accepted = threading.Lock(), count(1), deque[float](maxlen=rate)

    def judge(prompt: str) -> HTTPStatus:
        with lock, bill.open("a") as file:
            status = HTTPStatus.OK if next(calls) % 100 else HTTPStatus.INTERNAL_SERVER_ERROR
            now = time.monotonic()
            if len(accepted) == rate and now - accepted[0] < 1:
                status = HTTPStatus.TOO_MANY_REQUESTS
            else:
                accepted.append(now)
            print(status.value, prompt, file=file)  # an answer is paid for from now on, whether it arrives or not
            return status

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            prompt = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, answer = judge(prompt), b""
            if status == HTTPStatus.OK:
                time.sleep(0.02 + len(prompt) / 1000)
                row = {"prompt": prompt, "mood": "good" if prompt.endswith(("quiet", "bright")) else "bad"}
                answer = f"With pleasure! {json.dumps(row)} Anything else?".encode()
            self.send_response(status)
            self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket.listen(128)  # so many may knock at once
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def billed(bill: Path) -> dict[str, list[str]]:
    """Return the prompts of the calls so far, by what became of these."""
    prompts: dict[str, list[str]] = {"200": [], "429": [], "500": []}
    for line in bill.read_text().splitlines() if bill.exists() else []:
        status, _, prompt = line.partition(" ")
        prompts[status].append(prompt)
    return prompts


# The program


def prompts_in(path: Path, number: int) -> list[str]:
    """Return the prompts of a file, one a line; make so many if it is not there."""
    if not path.exists():
        words = cycle(["quiet", "cold", "bright", "loud"])
        path.write_text("".join(f"Review {n}: the room was {next(words)}\n" for n in range(1, number + 1)))
    return path.read_text().splitlines()


def priced(prompts: list[str]) -> str:
    """Return what the answers to prompts cost."""
    tokens = sum(len(prompt.split()) for prompt in prompts)
    return f"{len(prompts):,} answers, {tokens:,} tokens, {tokens / 100:,.2f} cents"


def main() -> None:
    """Ask, or go on asking, and show the bill."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=2000, help="how many to make, if prompts.txt is not there")
    parser.add_argument("--rate", type=int, default=200, help="how many calls the service accepts in a second")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files are kept")
    options = parser.parse_args()
    folder: Path = options.folder
    prompts = prompts_in(folder / "prompts.txt", options.prompts)
    bill = folder / "bill.txt"
    before = billed(bill)

    client = Client(serve(options.rate, bill))
    process = build(prompts, client, options.rate, folder / "answers.jsonl")
    *_, written = process.execute(run_id="prompts", journal=folder / "prompts.db", progress=True)

    now = billed(bill)
    print(f"{written:,} rows in answers.jsonl; {len(now['500']):,} calls failed, {len(now['429']):,} were refused")
    print("paid:", priced(now["200"]))
    print("begun again from the first prompt:", priced(before["200"] + prompts))


if __name__ == "__main__":
    main()
