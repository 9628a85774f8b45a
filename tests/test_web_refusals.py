"""What the page refuses: other names, other sites, requests without its key or its token, and what hostile names would do."""

import pickle
import re
import sqlite3
import time
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from procession import Process, RunCancelledError, task
from procession.journal import Journal
from web_pages import (
    BASE,
    BROKEN,
    COOKIE,
    HOSTILE,
    KEY,
    _nothing_broken,
    failing,
    going,
    numbers,
    opened,
    path,
    rows_of,
    token_of,
    work,
)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example:8765", "", "[::2]:1"],
)
def test_a_name_that_is_not_ours_is_refused(path, opened, host):
    """A site whose DNS leads to this machine reads nothing (DNS rebinding)."""
    numbers(1).execute(journal=path, run_id="secret-run")
    for address in "/", "/events", "/static/page.js":
        answer = opened(path).get(address, headers={"host": host})
        assert answer.status_code == 421
        assert "secret-run" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:1", "LOCALHOST", "[::1]:8765"])
def test_our_own_names_are_not(path, opened, host):
    """Through any port, for a tunnel may lead here."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path, cookies={f"procession-{port}": KEY for port in (8765, 80, 1)})
    assert page.get("/", headers={"host": host, "origin": f"http://{host}"}).status_code == 200


def test_on_every_address_any_number_will_do_but_no_name(path, opened):
    """No DNS can make up a number."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path, any_address=True, cookies=COOKIE | {"procession-80": KEY})
    for host, status in ("192.168.1.2:8765", 200), ("[fe80::1]", 200), ("evil.example", 421):
        assert page.get("/", headers={"host": host, "origin": f"http://{host}"}).status_code == status


@pytest.mark.parametrize("address", ["/", "/run/1", "/run/1/task/0", "/events", "/static/page.js", "/nothing"])
@pytest.mark.parametrize(
    ("query", "cookies"),
    [
        ("", {}),
        ("?key=", {}),
        (f"?key={KEY[:-1]}", {}),
        (f"?key={KEY}x", {}),
        ("?key=%ff%00", {}),
        ("", {"procession-8765": ""}),
        ("", {"procession-8765": KEY[:-1]}),
        ("", {"procession-8766": KEY}),
        ("", {"procession": KEY, "key": KEY}),
    ],
)
def test_without_the_key_nothing_is_shown(path, opened, address, query, cookies):
    """Another user of this machine learns nothing but where the right address stands."""
    numbers(1).execute(journal=path, run_id="secret-run")
    answer = opened(path, cookies=cookies).get(address + query)
    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith("text/plain")
    seen = opened(path, cookies=cookies).get(address + query, headers={"accept": "text/html,*/*"})
    assert (seen.status_code, "<title>Forbidden · Procession</title>" in seen.text) == (403, True)
    for one in answer, seen:
        assert "`procession ui` has printed in its terminal" in one.text
        assert not re.search("secret-run|function|set-cookie|static", one.text + str(one.headers))


def test_the_address_with_the_key_leads_in_and_the_key_is_gone_from_it(path, opened):
    """One opens what the terminal says, at any page; what the browser keeps in its history has no key."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path, cookies={})
    answer = page.get(f"/run/1?state=failed&key={KEY}&q=a%26b", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/run/1?state=failed&q=a%26b")
    assert KEY not in answer.text
    name, _, rest = answer.headers["set-cookie"].partition("=")
    assert name == "procession-8765"
    assert {part.strip().lower() for part in rest.split(";")[1:]} == {"httponly", "samesite=strict", "path=/"}
    assert page.get("/run/1").status_code == 200, "the cookie is enough from then on"
    assert page.get(f"/?key={KEY}", follow_redirects=False).headers["location"] == "/"
    assert page.get("/run/1?key=of-another-day").status_code == 200


@pytest.mark.parametrize("path_", ["//evil.example", "///evil.example/x", "/%5Cevil.example", "/%2F/evil.example"])
def test_the_address_with_the_key_leads_to_no_other_site(path, opened, path_):
    """Whatever stands before the key, one stays here."""
    page = opened(path, cookies={})
    location = page.get(f"{BASE}{path_}?key={KEY}", follow_redirects=False).headers["location"]
    assert re.match(r"/[^/\\]", location), location


def test_pages_on_two_ports_each_keep_their_own_key(path, opened):
    """A browser sends every cookie of a machine to all of its ports."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path, cookies=COOKIE | {"procession-9999": "the-key-of-another-page"})
    assert page.get("/").status_code == 200
    moved = {"host": "localhost:9999", "origin": "http://localhost:9999"}
    answer = page.get(f"/?key={KEY}", headers=moved, follow_redirects=False)
    assert answer.headers["set-cookie"].startswith("procession-9999=")


def test_nobody_without_the_key_cancels_a_run(path, opened, going):
    """Not even with the token, and not with the key in the address of a form."""
    page = opened(path, cookies={})
    for address, status in ("/run/1/cancel", 403), (f"/run/1/cancel?key={KEY}", 403):
        answer = page.post(address, data={"token": page.app.app.state.token}, follow_redirects=False)
        assert answer.status_code == status
    with Journal(path) as journal:
        assert not journal.run("run").cancelling


def test_odd_hosts_are_answered_and_break_nothing(path, opened):
    """What calls itself a port and is none is not worth a traceback."""
    for host in "127.0.0.1:99999999", "[::1:8765", "127.0.0.1:", "::1":
        answer = opened(path, cookies={}).get("/", headers={"host": host, "origin": f"http://{host}"})
        assert answer.status_code in (403, 421), host


def test_a_run_is_cancelled_by_a_post_with_the_token(path, opened, going):
    """The button works, and says that it has."""
    page = opened(path)
    answer = page.post("/run/1/cancel", data={"token": token_of(page)}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/run/1")
    with pytest.raises(RunCancelledError):
        going.result()
    assert rows_of(page.get("/").text)[0].startswith("cancelled run")
    again = page.post("/run/1/cancel", data={"token": page.app.app.state.token}, follow_redirects=False)
    assert again.status_code == 409


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (403, {"origin": "http://evil.example"}),
        (403, {"origin": "null"}),
        (403, {"origin": "http://127.0.0.1:9999"}),
        (403, {"origin": "http://127.0.0.1:8765.evil.example"}),
        (403, {"origin": None}),
        (403, {"token": ""}),
        (403, {"token": "x" * 32}),
        (403, {"token": None}),
        (413, {"token": "x" * 5000}),
        (405, {"method": "GET"}),
        (405, {"method": "PUT"}),
    ],
)
def test_nothing_else_cancels_it(path, opened, going, status, change):
    """No other site, no link and no picture can change anything."""
    page = opened(path)
    token = change.get("token", token_of(page))
    origin = change.get("origin", BASE)
    headers = {} if origin is None else {"origin": origin}
    client = TestClient(page.app, base_url=BASE, cookies=COOKIE)
    data = {} if token is None else {"token": token}
    answer = client.request(change.get("method", "POST"), "/run/1/cancel", data=data, headers=headers)
    assert answer.status_code == status
    with Journal(path) as journal:
        assert not journal.run("run").cancelling


def test_a_request_of_another_site_reads_nothing(path, opened):
    """Neither does it with GET."""
    numbers(1).execute(journal=path, run_id="secret-run")
    answer = opened(path).get("/", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403
    assert "secret-run" not in answer.text


def test_hostile_names_are_shown_harmless(where, opened):
    """Whatever a process, a task, a run or an error is called, it is text."""

    @task(name=HOSTILE)
    def named():
        raise ValueError(HOSTILE)

    process = Process(HOSTILE, "parallel", 1, on_error="return")
    process.add_task(named)
    process.map(named, [])
    process.execute(journal=where, run_id=HOSTILE)
    Process(HOSTILE).execute(journal=where, run_id="other")
    page = opened(where)
    for address in (
        "/",
        f"/?q={quote(HOSTILE)}",
        f"/?process={quote(HOSTILE)}",
        "/?status=<script>",
        "/run/1",
        f"/run/1?q={quote(HOSTILE)}",
        "/run/1?state=failed",
        "/run/1/graph",
        "/run/1/time",
        "/run/1/compared",
        "/run/1/task/0",
        f"/run?id={quote(HOSTILE)}",
        "/<script>",
        "/run/<script>",
    ):
        text = page.get(address).text
        assert "<script>" not in text, address
        text = re.sub(r'<option value="[^"]*"', "", text)  # which nobody sees
        assert "\u202e" not in text, address
        assert "\x1b" not in text, address
        assert not re.search(r"\son\w+=", text), address


@pytest.mark.parametrize("name", ["map of " * 2000, "n" * 100_000 + "'", "\n", " (a:b '" * 1000], ids=len)
def test_a_task_may_have_any_name(path, opened, name):
    """Its run is shown, with its graph and its time, and no page of it is large."""
    process = Process("any", "parallel")
    process.add_task(task(name=name)(work), 1)
    process.map(task(name=name)(work), [1])
    process.execute(journal=path, run_id="run")
    page = opened(path)
    answers = [page.get(f"/run/1{part}") for part in ("", "/graph", "/time", "/task/0", "/task/1", "/compared")]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert max(len(answer.text) for answer in answers) < 30_000
    assert "</html>" in answers[1].text


def test_every_answer_has_the_headers_that_browsers_obey(path, opened):
    """Only our files run, nobody frames the page, and nothing of it is kept."""
    numbers(1).execute(journal=path, run_id="run")
    page = opened(path)
    for address, host in [("/", None), ("/run/1", None), ("/nothing", None), ("/static/page.js", None), ("/", "evil")]:
        answer = page.get(address, headers={"host": host} if host else {})
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers


def test_nothing_is_loaded_from_elsewhere_and_nothing_stands_in_the_page_itself(path, opened):
    """No address of another site, no inline script and no inline style."""
    BROKEN.add(0)
    failing(numbers(2), path, "run")
    page = opened(path)
    for address in "/", "/run/1", "/run/1/graph", "/run/1/time", "/run/1/compared", "/run/1/task/0", "/nothing":
        text = page.get(address).text
        assert not re.search(r"https?://|[\"'(]//|url\(|@import", text), address
        assert not re.search(r"<style|\sstyle=|<script(?![^>]*src=)|<iframe|<object", text), address
    for name in "style.css", "graph.css", "page.js", "icon.svg":
        text = page.get(f"/static/{name}").text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|[\"'(]//\w|url\(|@import|eval\(|innerHTML", text), name


class Trap:
    def __reduce__(self):
        return (BROKEN.add, ("unpickled",))


def test_no_value_is_ever_unpickled(path, opened, monkeypatch):
    """A recorded value may run code when it is read; the page never reads one."""
    numbers(3).execute(journal=path, run_id="run")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE procession_records SET value = ?", (pickle.dumps(Trap()),))
    connection.close()

    def refuse(*_):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    page = opened(path)
    for address in "/", "/run/1", "/run/1/time", "/run/1/compared", "/run/1/task/0", "/run/1?state=completed":
        assert page.get(address).status_code == 200
    assert "unpickled" not in BROKEN


MEANINGLESS = [
    ("/static/../app.py", 404),
    ("/static/..%2fapp.py", 404),
    ("/static/%2e%2e%2f%2e%2e%2fpyproject.toml", 404),
    ("/static//etc/passwd", 404),
    ("/../../etc/passwd", 404),
    ("/static/style.css%00", 404),
    ("/run/0", 404),
    ("/run/77", 404),
    ("/run/-1", 400),
    ("/run/1e3", 400),
    ("/run/١", 400),
    ("/run/" + "9" * 18, 404),
    ("/run/" + "9" * 30, 400),
    ("/run/1/task/999999999999", 404),
    ("/run/1/task/x", 400),
    ("/run/1/task/0/" + "9" * 18, 404),
    ("/run/1?from=-5", 400),
    ("/run/1?from=1' OR '1'='1", 400),
    ("/run/1?from=" + "9" * 18, 200),
    ("/run/1?state=lost", 400),
    ("/?before=abc", 400),
    ("/?before=" + "9" * 18, 200),
    ("/?status=lost", 400),
    ("/?q=%00", 400),
    ("/?q=%ff%fe", 200),
    ("/?q=" + "x" * 201, 400),
    ("/run?id=%00", 400),
    ("/run?id=nothing", 404),
    ("/run?id=", 404),
    ("/run?id=" + "x" * 5000, 400),
    ("/run?id=a/a/a", 404),
    ("/run?id=" + "1/" * 1900, 404),
    ("/?q=" + "x" * 9000, 414),
    ("/" + "x" * 9000, 414),
    ("/run/1/compared?with=99", 404),
    ("/events?run=x", 400),
    ("/run/1/cancel", 405),
]


def test_addresses_that_mean_nothing_are_refused_plainly(where, opened):
    """Traversal, numbers that are none, and texts without end get an answer that says so, and no traceback."""
    numbers(2).execute(journal=where, run_id="run")
    page = opened(where)
    answers = {address: page.get(address) for address, _ in MEANINGLESS}
    assert {address: answer.status_code for address, answer in answers.items()} == dict(MEANINGLESS)
    assert not any("Traceback" in answer.text or len(answer.text) > 20_000 for answer in answers.values())


def test_pages_are_read_while_the_journal_is_being_written(where, opened, request):
    """A writer that holds the database's lock keeps no page waiting, and no page keeps a writer waiting."""
    numbers(5).execute(journal=where, run_id="run")
    page = opened(where)
    with Journal(where) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql("UPDATE procession_runs SET process = 'changed'")
        began = time.monotonic()
        for address in "/", "/run/1", "/run/1/time", "/run/1/task/0":
            text = page.get(address).text
            assert "numbers" in text
            assert "changed" not in text
        assert time.monotonic() - began < 20, "nobody waited for a lock"
    assert "changed" in page.get("/").text


def test_reading_needs_no_right_to_write(postgres, opened):
    """On a server, a user who may only read sees all pages."""
    import psycopg

    url = postgres.new_database()
    numbers(3).execute(journal=url, run_id="run")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS looker")
        connection.execute("CREATE ROLE looker LOGIN")
        schema = connection.execute("SELECT current_schema()").fetchone()[0]
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO looker")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO looker")
    page = opened(url.replace("procession@", "looker@"))
    for address in "/", "/run/1", "/run/1/time", "/run/1/compared", "/run/1/task/0":
        assert page.get(address).status_code == 200
