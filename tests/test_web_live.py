"""The page while runs go on: events, connections and strangers who hold them."""

import asyncio
import contextlib
import functools
import logging
import threading

import pytest
import uvicorn
from starlette.testclient import TestClient
from uvicorn.server import ServerState

from procession import JournalError, Process, RunCancelledError
from procession.journal import Journal, Reader
from procession.web import connection
from procession.web.connection import STRANGERS, Connection
from procession.web.live import STREAMS, Live
from web_pages import BASE, BEGUN, COOKIE, HELD, KEY, _nothing_broken, hold, numbers, opened, path


def asyncio_test(function):
    @functools.wraps(function)
    def run(*arguments, **named):
        asyncio.run(asyncio.wait_for(function(*arguments, **named), 100))

    return run


class Stamps:
    """What a poller sees: another stamp each time it looks, as long as it changes."""

    def __init__(self):
        self.looks = 0
        self.changing = True

    def __call__(self, topic):
        self.looks += self.changing
        return f"{topic}-{self.looks}"


@asyncio_test
async def test_a_page_that_does_not_read_is_owed_one_event_and_no_more():
    """However much has changed meanwhile, it is told once, of the last state."""
    stamps = Stamps()
    live = Live(stamps, pause=0.0)
    stream = live.stream(None, "")
    await anext(stream)
    before = stamps.looks
    while stamps.looks < before + 200:
        await asyncio.sleep(0)
    stamps.changing = False
    last = stamps.looks
    assert int((await anext(stream)).rpartition("-")[2]) >= last - 1
    waiting = asyncio.ensure_future(anext(stream))
    while not waiting.done():
        await asyncio.sleep(0)
        if int(live._stamps[None].rpartition("-")[2]) == last:
            break
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@asyncio_test
async def test_there_is_one_poller_for_all_pages_and_none_without_a_page():
    """A hundred open pages ask the journal as often as one does."""
    looks = []

    def stamp(topic):
        looks.append(threading.get_ident())
        return str(len(looks))

    live = Live(stamp, pause=0.001)
    streams = [live.stream(7, "") for _ in range(100)]
    firsts = await asyncio.gather(*(anext(stream) for stream in streams))
    assert live.streams == 100
    assert len(set(firsts)) <= len(looks) < 100
    for stream in streams:
        await stream.aclose()
    assert live.streams == 0
    while live._poller is not None:
        await asyncio.sleep(0.001)
    seen = len(looks)
    await asyncio.sleep(0.02)
    assert len(looks) == seen


@asyncio_test
async def test_a_server_that_ends_ends_its_streams():
    """Ctrl-C does not wait for browsers."""
    live = Live(lambda topic: "same")
    stream = live.stream(None, "same")
    waiting = asyncio.ensure_future(anext(stream, "ended"))
    await asyncio.sleep(0.01)
    live.close()
    assert await waiting == "ended"


@asyncio_test
async def test_pages_without_end_are_refused(path, opened):
    """A hundred streams are enough, also where they are all asked for at once."""
    page = opened(path).app
    headers = [(b"host", b"127.0.0.1:8765"), (b"cookie", f"procession-8765={KEY}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": headers}
    answered, all_answered = [], asyncio.Event()

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        if message["type"] == "http.response.start":
            answered.append(message["status"])
            if len(answered) == STREAMS + 5:
                all_answered.set()

    asking = [asyncio.create_task(page(dict(scope), receive, send)) for _ in range(STREAMS + 5)]
    await all_answered.wait()
    for one in asking:
        one.cancel()
    await asyncio.wait(asking)
    assert sorted(answered) == [200] * STREAMS + [503] * 5


@asyncio_test
async def test_a_stream_that_never_begins_takes_nobodys_place():
    """A browser may be gone before its stream could begin."""
    live = Live(lambda topic: "same")
    stream = live.stream(None, "same")
    assert live.streams == 1
    del stream
    assert live.streams == 0


@contextlib.asynccontextmanager
async def served(app):
    """Yields what connects to a server of a page and says something: what is answered can be read from it."""
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    state, loop, writers = ServerState(), asyncio.get_running_loop(), []
    server = await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)

    async def connect(said):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writers.append(writer)
        writer.write(said)
        await writer.drain()
        return reader

    yield connect
    server.close()
    for writer in writers:
        writer.transport.abort()
    while state.connections or state.tasks:
        await asyncio.sleep(0)


async def ended(reader):
    """Return whether nothing more comes, of what may have been cut off."""
    with contextlib.suppress(ConnectionError):
        return await reader.read() == b""
    return True


def whole(path="/static/page.js", cookie=KEY, more=""):
    return f"GET {path} HTTP/1.1\r\nHost: localhost:8765\r\nCookie: procession-8765={cookie}\r\n{more}\r\n".encode()


@asyncio_test
async def test_strangers_who_hold_connections_do_not_keep_the_page_from_its_user(path, opened):
    """There is a number of them, and the oldest goes for the newest; who has shown the key stays."""
    async with served(opened(path).app) as connect:
        open_page = await connect(whole("/events"))
        assert await open_page.readline() == b"HTTP/1.1 200 OK\r\n"
        kinds = b"", b"GET / HT", whole(cookie="no")
        strangers = [await connect(held) for held in kinds * (STRANGERS // len(kinds) + 5)]
        assert await (await connect(whole())).readline() == b"HTTP/1.1 200 OK\r\n"
        assert await ended(strangers[0])
        assert not strangers[-2].at_eof()
        assert not open_page.at_eof()


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nA: ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"]
)
@asyncio_test
async def test_a_request_has_to_arrive_within_a_time(path, opened, monkeypatch, sent):
    """Whoever sends a part of one, or nothing, does not hold a connection for ever."""
    monkeypatch.setattr(connection, "PATIENCE_S", 0.02)
    async with served(opened(path).app) as connect:
        assert await ended(await connect(sent))


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\r\n\r\n",
        whole(cookie="no", more="Connection: close\r\n") + b"\0\r\n\r\n",
        whole(cookie="no", more="Transfer-Encoding: chunked\r\n") + b"5\r\nabcdeXX0\r\n\r\n",
        whole(cookie="no", more="Connection: upgrade\r\nUpgrade: websocket\r\n"),
    ],
    ids=["nothing", "after the last", "in the middle", "upgrade"],
)
@asyncio_test
async def test_what_strangers_send_that_is_no_request_fills_no_terminal(path, opened, caplog, sent):
    """Nothing is said of it, whether it comes first or after something that was one."""
    async with served(opened(path).app) as connect:
        reader = await connect(sent)
        assert (await reader.readline())[9:12] in (b"400", b"403")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_stamp_changes_with_what_a_page_shows(where, comes_true):
    """A new run, a task that ends, an end, a request to cancel: each is news, and nothing else is."""
    process = Process("steps", "parallel", 1)
    for _ in range(3):
        process.add_task(hold)
    with Journal(where) as journal:

        def stamps():
            with journal.reader() as reader:
                return reader.stamp(None), reader.stamp(1)

        run = process.start(journal=where, run_id="run")
        BEGUN.acquire(timeout=30)
        numbers(1).execute(journal=where, run_id="other")
        before = stamps()
        HELD.release()
        BEGUN.acquire(timeout=30)
        assert comes_true(lambda: before[1] != stamps()[1])  # the next call may begin before that is committed
        before = stamps()
        journal.cancel("run")
        with pytest.raises(RunCancelledError):
            run.result()
        over = stamps()
        assert before[0] != over[0]
        assert before[1] != over[1]
        assert stamps() == over
        numbers(1).execute(journal=where, run_id="third")
        assert stamps()[0] != over[0]
        assert stamps()[1] == over[1]


def test_a_mistake_of_ours_is_said_without_its_traceback(path, opened, monkeypatch):
    """Whoever runs the server sees the traceback, which the server is given to log; whoever asked does not."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path)
    monkeypatch.setattr(Reader, "run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        page.get("/run/1")
    page = TestClient(page.app, base_url=BASE, cookies=COOKIE, raise_server_exceptions=False)
    answer = page.get("/run/1")
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert "content-security-policy" in answer.headers


def test_a_journal_that_fails_half_way_through_a_page_is_said_on_it(path, opened, monkeypatch):
    """What has been sent cannot be taken back, but the rest says why it is missing."""
    numbers(1).execute(journal=path, run_id="run")

    def fail(*_, **__):
        raise JournalError("the disk is gone")

    monkeypatch.setattr(Reader, "shares", fail)
    answer = opened(path).get("/run/1/time")
    assert answer.status_code == 200
    assert "the disk is gone" in answer.text
    assert answer.text.rstrip().endswith("</html>")
