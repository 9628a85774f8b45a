"""The page as an ASGI application: which address shows what."""

import hashlib
import mimetypes
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import cache
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlencode

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from procession._model.columns import shortened
from procession._model.table import lasting
from procession._model.text import answer_of, counted, headline
from procession.errors import JournalError, RunUnknownError
from procession.journal import Journal, Reader, RunInfo
from procession.pictures.cards import GRAPH_SHEET
from procession.pictures.timeline_svg import TIMELINE_SHEET
from procession.web import formatting, query_params, rerun
from procession.web.guard import Guard
from procession.web.live import STREAMS, Live, Topic
from procession.web.pages import Context, Pages

LOCAL = ("127.0.0.1", "localhost", "::1")
"""What a server that only this machine reaches may be called."""

BODY = 4_000
"""Bytes of a form, at most."""

_LATE = "<!-- late -->"
"""Where a template stops that has to work for what comes after."""

Show = Callable[[Reader, Request], Context]


def application(journal: Journal, key: str, names: Iterable[str] = LOCAL, *, any_address: bool = False) -> Guard:
    """Return the page of a journal. It answers requests that have the key.

    `names`, and with `any_address` any number, are what its server may be called.
    """
    _templates()
    site = _Site(journal)
    app = Starlette(
        routes=[
            Route("/", site.page("runs.html", site.pages.runs)),
            Route("/run", site.by_id),
            Route("/run/{key}", site.page("run.html", site.of_run(site.pages.run))),
            Route("/run/{key}/nested", site.page("nested.html", site.of_run(site.pages.nested))),
            Route("/run/{key}/graph", site.late("graph.html", site.pages.graph)),
            Route("/run/{key}/time", site.late("time.html", site.pages.time)),
            Route("/run/{key}/compared", site.page("compared.html", site.of_run(site.pages.compared))),
            Route("/run/{key}/task/{task}", site.page("task.html", site.task)),
            Route("/run/{key}/task/{task}/{element}", site.page("task.html", site.task)),
            Route("/run/{key}/cancel", site.cancel, methods=["POST"]),
            Route("/run/{key}/answer", site.answer, methods=["POST"]),
            Route("/run/{key}/rerun", site.page("rerun.html", site.of_run(site.asked_again))),
            Route("/run/{key}/rerun", site.call_again, methods=["POST"]),
            Route("/events", site.events),
            Route("/static/{name}", site.static),
        ],
        exception_handlers={
            HTTPException: site.on_http,
            RunUnknownError: site.on_unknown,
            JournalError: site.on_journal,
            Exception: site.on_error,
        },
    )
    app.state.live, app.state.token = site.live, site.token
    # Around all of it: Starlette's own middleware would stand within what answers when we have made a mistake.
    return Guard(app, key, names, any_address=any_address)


class _Site:
    """What the addresses have in common."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.live = Live(self._stamp)
        self.token = secrets.token_urlsafe(24)
        self.address = _short(journal.database.where)
        self.pages = Pages(self.address[1])

    # Pages

    def page(self, template: str, show: Show) -> Callable[[Request], Response]:
        """Return a route that answers with a template, filled in with what `show` returns."""

        def answer(request: Request) -> Response:
            with self.journal.reader() as reader:
                # Taken first: what changes while the rest is read must not go unnoticed.
                topic = query_params.digits(request.path_params["key"], "run") if "key" in request.path_params else None
                stamp = reader.stamp(topic)
                context = show(reader, request)
                context |= self._around(request, reader.now, topic, stamp)
            return HTMLResponse(_templates().get_template(template).render(context))

        return answer

    def of_run(self, show: Callable[[Reader, Request, int], Context]) -> Show:
        """Return a `Show` for the run that the address names."""
        return lambda reader, request: show(reader, request, query_params.path_number(request, "key"))

    def task(self, reader: Reader, request: Request) -> Context:
        """Show a task, or an element of a map."""
        element = query_params.path_number(request, "element") if "element" in request.path_params else None
        return self.pages.task(
            reader,
            request,
            query_params.path_number(request, "key"),
            query_params.path_number(request, "task"),
            element,
        )

    def late(self, template: str, show: Callable[[Reader, int, RunInfo], Context]) -> Callable[[Request], Response]:
        """Return a route for a part of a run that takes a while; the head of its page is sent at once."""

        def answer(request: Request) -> Response:
            key = query_params.path_number(request, "key")
            with self.journal.reader() as reader:
                stamp, now = reader.stamp(key), reader.now
                info, outer = reader.run(key), reader.outer(key)

            def shown() -> Context:
                try:
                    with self.journal.reader() as reader:
                        return show(reader, key, info)
                except (JournalError, RunUnknownError) as error:
                    return {"problem": str(error)}

            context = {"key": key, "run": info, "outer": outer, "shown": shown}
            context |= self._around(request, now, key, stamp)
            pieces = _templates().get_template(template).generate(context)
            return StreamingResponse(_in_two(pieces), media_type="text/html")

        return answer

    def by_id(self, request: Request) -> Response:
        """Lead to the run of an id."""
        run_id = query_params.text(request, "id", 4000)
        with self.journal.reader() as reader:
            return RedirectResponse(f"/run/{reader.key(run_id)}", 303)

    def static(self, request: Request) -> Response:
        """Answer with one of our files. They are in memory, and there are no others."""
        name = request.path_params["name"]
        if name not in _files():
            raise HTTPException(404, "there is no such file")
        kept = {"cache-control": "max-age=31536000, immutable"} if "v" in request.query_params else {}
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(_files()[name], media_type=kind, headers=kept)

    # Changes

    async def cancel(self, request: Request) -> Response:
        """Ask the program that executes a run to cancel it."""
        await self._fields(request)
        key = query_params.path_number(request, "key")
        await run_in_threadpool(self._cancel, key)
        return RedirectResponse(f"/run/{key}", 303)

    async def answer(self, request: Request) -> Response:
        """Give a run the answer that it waits for."""
        fields = await self._fields(request)
        key = query_params.path_number(request, "key")
        task = query_params.digits(fields.get("task", ""), "task")
        element = query_params.digits(fields["element"], "element") if fields.get("element") else None
        await run_in_threadpool(
            self._answer, fields.get("run", ""), fields.get("name", ""), fields.get("value", ""), task, element
        )
        return RedirectResponse(f"/run/{key}", 303)

    def asked_again(self, reader: Reader, request: Request, key: int) -> Context:
        """Show which part of a run would be called again, before it is forgotten."""
        run_id = rerun.run_id_of(reader, key)
        asked = rerun.asked(self.journal, run_id, rerun.chosen_by(request.query_params))
        return {"key": key, "run": reader.run(key), "outer": [], "asked": asked}

    async def call_again(self, request: Request) -> Response:
        """Forget a part of a run, so that it is called again when the run goes on."""
        fields = await self._fields(request)
        key = query_params.path_number(request, "key")
        await run_in_threadpool(self._call_again, key, rerun.chosen_by(fields), fields.get("seen", ""))
        return RedirectResponse(f"/run/{key}#next", 303)

    async def _fields(self, request: Request) -> dict[str, str]:
        """Return the fields of a form of ours; a form that is not is refused."""
        body = b""
        try:
            async for part in request.stream():
                body += part
                if len(body) > BODY:
                    raise HTTPException(413, "the form is too long")
        except ClientDisconnect:
            raise HTTPException(400, "the form has not arrived") from None
        found = parse_qs(body.decode("latin-1"), keep_blank_values=True)
        fields = {name: values[0] for name, values in found.items()}
        if not secrets.compare_digest(fields.get("token", "").encode(), self.token.encode()):
            raise HTTPException(403, "the page was made before the server was started again; open it again")
        return fields

    def _cancel(self, key: int) -> None:
        with self.journal.reader() as reader:
            run_id, nested = reader.run(key).id, reader.outer(key)
        if nested:
            raise HTTPException(409, "a run inside another one is cancelled with that")
        if not self.journal.cancel(run_id):
            raise HTTPException(409, "nobody executes the run any more")

    def _call_again(self, key: int, chosen: rerun.Chosen, seen: str) -> None:
        with self.journal.reader() as reader:
            run_id = rerun.run_id_of(reader, key)
        rerun.forget(self.journal, run_id, chosen, seen)

    def _answer(self, run_id: str, name: str, text: str, task: int, element: int | None) -> None:
        try:
            self.journal.answer(run_id, name, answer_of(text), task=task, element=element)
        except ValueError as error:
            raise HTTPException(409, str(error)) from None

    # Events

    async def events(self, request: Request) -> Response:
        """Answer with a stream that says when to look again: at the run of a key, or at the list."""
        topic: Topic = query_params.number(request, "run")
        known = request.headers.get("last-event-id") or query_params.text(request, "since")
        if self.live.streams >= STREAMS:
            raise HTTPException(503, f"{STREAMS} pages are open already")
        stamps = self.live.stream(topic, known)

        async def stream() -> AsyncIterator[str]:
            yield "retry: 2000\n\n"
            async for stamp in stamps:
                yield f"id: {stamp}\nevent: changed\ndata: {stamp}\n\n" if stamp else ":\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    def _stamp(self, topic: Topic) -> str:
        try:
            with self.journal.reader() as reader:
                return reader.stamp(topic)
        except Exception as error:
            return type(error).__name__

    # What goes wrong

    async def on_http(self, request: Request, error: Exception) -> Response:
        """Answer what was wrong with a request."""
        assert isinstance(error, HTTPException)
        return self._problem(request, error.status_code, error.detail, error.headers)

    async def on_unknown(self, request: Request, error: Exception) -> Response:
        """Answer that there is no such run."""
        return self._problem(request, 404, f"{error}. It may have been pruned.")

    async def on_journal(self, request: Request, error: Exception) -> Response:
        """Answer why the journal cannot be read."""
        return self._problem(request, 503, str(error))

    async def on_error(self, request: Request, _error: Exception) -> Response:
        """Answer that the page itself failed. Starlette passes the error on to the server, which logs it."""
        return self._problem(request, 500, "this should not have happened; the server's terminal says more")

    def _problem(self, request: Request, status: int, why: str, headers: Any = None) -> Response:
        context = {"status": status, "phrase": HTTPStatus(status).phrase, "why": why}
        # When the journal is there again, so is the page.
        context |= self._around(request, 0.0, None, "" if status != HTTPStatus.SERVICE_UNAVAILABLE else "JournalError")
        return HTMLResponse(_templates().get_template("problem.html").render(context), status, headers)

    def _around(self, request: Request, now: float, topic: Topic, stamp: str) -> Context:
        watched = {"since": stamp} if topic is None else {"run": topic, "since": stamp}
        return {
            "now": now,
            "events": f"/events?{urlencode(watched)}" if stamp else "",
            "query": _query(request),
            "token": self.token,
            "address": self.address,
        }


@cache
def _files() -> dict[str, bytes]:
    """Return the files that browsers get as they are, by name."""
    files = {file.name: file.read_bytes() for file in (resources.files("procession.web") / "static").iterdir()}
    return {**files, "graph.css": (GRAPH_SHEET + TIMELINE_SHEET).encode()}


@cache
def _templates() -> jinja2.Environment:
    """Return the templates, compiled before the first request."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("procession.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = b"".join(data for _, data in sorted(_files().items()))
    known: dict[str, Any] = templates.globals
    version = hashlib.blake2b(files, digest_size=6).hexdigest()
    known.update(version=version, moment=formatting.moment, counted=counted)
    filters: dict[str, Any] = templates.filters
    for said in (
        formatting.plain,
        formatting.lines,
        formatting.traceback,
        headline,
        shortened,
        formatting.count,
        formatting.entries,
        formatting.json_text,
        formatting.file,
        lasting,
        formatting.size,
    ):
        filters[said.__name__] = said
    for name in templates.list_templates():
        templates.get_template(name)
    return templates


def _query(request: Request) -> Callable[..., str]:
    """Return a function that makes the query of a link: this page's query with changes; `None` leaves a name out."""

    def query(**changes: Any) -> str:
        asked_for = {name: value for name, value in request.query_params.items() if name in _KEPT}
        wanted = {name.rstrip("_"): value for name, value in {**asked_for, **changes}.items()}
        text = urlencode({name: value for name, value in wanted.items() if value not in (None, "")})
        return f"?{text}" if text else request.url.path

    return query


_KEPT = ("q", "status", "process", "state", "order")


def _in_two(pieces: Iterator[str]) -> Iterator[str]:
    first: list[str] = []
    for piece in pieces:
        first.append(piece)
        if _LATE in piece:
            break
    yield "".join(first)
    yield "".join(pieces)


def _short(address: str) -> tuple[str, str]:
    """Return the last part of a journal's place, and all of it."""
    whole = address.strip("'\"")
    path = whole.partition("?")[0] if "://" in whole else whole
    return path.rpartition("/")[2] or whole, whole
