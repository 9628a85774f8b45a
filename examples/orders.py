"""A small web service in which each order is one durable run: 64 at once, killed, started again, and nobody pays twice.

    pip install "procession[web]"
    python examples/orders.py                    the whole story, with a service that is killed and started again
    python examples/orders.py serve FOLDER PORT  only the service

                        ┌──▶ charge ──▶ book ──┐
    POST /orders/7 ─────┤                      ├──▶ confirm ──▶ answer
                        └──▶ reserve ──────────┘

The number of the order is the run's id. So an order that is sent twice is executed once, and one that was interrupted
goes on with the steps that are missing. A step that was under way when the service was killed is called again: the
bank is told the number of the order, and charges each number once, as banks do.
"""

import asyncio
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.request import Request, urlopen

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as Asked
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from procession import Process, RunInUseError, task
from procession.journal import Journal

ORDERS = 120
AT_ONCE = 64
KILLED_AFTER = 40
"""How many orders are answered when the service is killed."""


# The bank, which is somebody else's: it charges each order once, and notes how often it was asked


class Bank:
    """Keeps its books in a file."""

    def __init__(self, folder: Path) -> None:
        self._books = folder / "bank.db"
        with closing(sqlite3.connect(self._books)) as books, books:
            books.execute("PRAGMA journal_mode = WAL")
            books.execute("CREATE TABLE IF NOT EXISTS charge (number INTEGER PRIMARY KEY, cents INTEGER)")
            books.execute("CREATE TABLE IF NOT EXISTS asked (number INTEGER)")

    def charge(self, number: int, cents: int) -> str:
        """Charge an order, if it has not been charged, and return the receipt."""
        with closing(sqlite3.connect(self._books, timeout=30)) as books, books:
            books.execute("INSERT INTO asked VALUES (?)", (number,))
            books.execute("INSERT OR IGNORE INTO charge VALUES (?, ?)", (number, cents))
        return f"receipt-{number}"

    def total(self) -> tuple[int, int]:
        """Return how many orders were charged, and how many times the bank was asked."""
        with closing(sqlite3.connect(self._books)) as books:
            (charged,) = books.execute("SELECT count(*) FROM charge").fetchone()
            (asked,) = books.execute("SELECT count(*) FROM asked").fetchone()
        return charged, asked


# The steps of an order


class Confirmation(NamedTuple):
    """What the customer is told."""

    number: int
    receipt: str
    parcel: str


async def reserve(number: int) -> str:
    """Take the goods from the shelf."""
    await asyncio.sleep(0.02)  # in your program, a query
    return f"parcel-{number}"


def confirm(number: int, receipt: str, parcel: str) -> Confirmation:
    """Put together what the customer is told."""
    return Confirmation(number, receipt, parcel)


def order_process(bank: Bank, number: int) -> Process:
    """Return the process of one order."""

    @task(name="charge", retries=3, retry_on=sqlite3.OperationalError)
    def charge(number: int, cents: int) -> str:
        time.sleep(0.02)  # in your program, a request to the bank
        return bank.charge(number, cents)

    process = Process("order", "parallel", max_workers=4)
    receipt = process.task(charge, number, 900)
    parcel = process.task(reserve, number)
    process.task(confirm, number, receipt, parcel)
    return process


# The service


def application(folder: Path) -> Starlette:
    """Return the service, whose journal and bank are in a folder."""
    bank, journal = Bank(folder), Journal(str(folder / "orders.db"))

    async def order(asked: Asked) -> Response:
        number = int(asked.path_params["number"])
        try:
            *_, answer = await order_process(bank, number).execute_async(run_id=f"order-{number}", journal=journal)
        except RunInUseError:  # the same order is being executed for somebody who sent it before
            return JSONResponse({"error": "in progress"}, 409)
        return JSONResponse(answer._asdict())

    return Starlette(routes=[Route("/orders/{number:int}", order, methods=["POST"])])


def serve(folder: Path, port: int) -> None:
    """Serve until the process is ended."""
    uvicorn.run(application(folder), host="127.0.0.1", port=port, log_level="warning")


# The customers: a process of its own, which sends each order until it is answered


def send(port: int, number: int) -> str:
    """Send one order, and return the answer."""
    with urlopen(Request(f"http://127.0.0.1:{port}/orders/{number}", method="POST"), timeout=30) as answer:
        return str(answer.read().decode())


again = Retrying(
    retry=retry_if_exception_type((OSError, HTTPException)),  # the service is not there, or was killed as it answered
    wait=wait_random(0.1, 0.3),
    stop=stop_after_delay(60),
)


def started(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start the service in a process of its own."""
    return subprocess.Popen([sys.executable, __file__, "serve", str(folder), str(port)])


def main() -> None:
    """Send the orders, kill the service in the middle, start it again, and look into the bank's books."""
    with TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as free:
        folder, port = Path(name), free.getsockname()[1]
        free.close()
        customers = Process("customers", "parallel", max_workers=AT_ONCE)
        for number in range(ORDERS):
            customers.add_task(task(retries=again)(send), port, number)

        service = started(folder, port)
        try:
            run = customers.start()
            for answered, _ in enumerate(run, 1):
                if answered == KILLED_AFTER:
                    service.kill()
                    service.wait()
                    service = started(folder, port)
            answers = run.result()
        finally:
            service.kill()
            service.wait()

        charged, asked = Bank(folder).total()
        print(f"{len(set(answers))} orders answered; the service was killed after {KILLED_AFTER} and started again")
        print(f"{charged} orders charged, each once; the bank was asked {asked - charged} times more than that")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
