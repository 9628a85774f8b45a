"""Runs that wait, on the page: what they wait for is shown, and answered by a form that only the page can send."""

import re
from html import unescape

import pytest

from procession import Process, RunSuspendedError, current_task
from procession.journal import Journal, schema
from web_pages import BASE, HOSTILE, KEY, opened, path

NAME = "<b>\"approval\"</b> & 'more'"


def ask(number):
    return number, current_task().wait_for(NAME, timeout=3600)


def nap():
    current_task().sleep(86400)


def suspended(path, process, run_id="a"):
    with pytest.raises(RunSuspendedError):
        process.execute(run_id=run_id, journal=path)


@pytest.fixture
def waiting(path):
    """A run of which two elements of a map wait, and a task sleeps."""
    process = Process("waiting", "parallel", 2)
    process.map(ask, [1, 2])
    process.add_task(nap)
    suspended(path, process)
    return process


def forms_of(text):
    """Return the fields of each form for an answer."""
    found = []
    for form in re.findall(r'<form method="post" action="/run/\d+/answer">(.*?)</form>', text, re.DOTALL):
        fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form)
        found.append({name: unescape(value) for name, value in fields})
    return found


def test_what_a_run_waits_for_is_shown_and_answered(path, opened, waiting):
    """Each has a form of its own; a sleep has none."""
    page = opened(path)
    text = page.get("/run/1").text
    assert '<p id="status" role="status"><span class="state suspended">suspended</span>' in text
    first, second = forms_of(text)
    assert (first["run"], first["name"], first["task"], first["element"]) == ("a", NAME, "0", "0")
    assert second["element"] == "1"
    assert "its time" in text
    answer = page.post("/run/1/answer", data={**first, "value": '{"by": "Ann"}'}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/run/1")
    assert page.post("/run/1/answer", data={**second, "value": "söme text"}).status_code == 200
    text = page.get("/run/1").text
    assert forms_of(text) == []
    assert "answered" in text
    with Journal(path) as journal, journal.database.writing() as connection:
        connection.execute(schema.waits.update().where(schema.waits.c.kind == "sleep").values(due=1.0))
    assert waiting.execute(run_id="a", journal=path) == [[(1, {"by": "Ann"}), (2, "söme text")], None]
    assert "What it waits for" not in page.get("/run/1").text


def test_suspended_runs_are_listed_with_what_they_wait_for(path, opened, waiting):
    page = opened(path)
    text = page.get("/?status=suspended").text
    assert "waits for" in text
    assert "&lt;b&gt;" in text
    assert "<b>&#34;" not in text
    assert 'id="s-suspended"' in page.get("/").text
    assert "It waits for an answer or until a time" in page.get("/run/1/task/1").text


def test_who_answers_too_late_is_told(path, opened, waiting):
    page = opened(path)
    first, second = forms_of(page.get("/run/1").text)
    page.post("/run/1/answer", data={**first, "value": "1"})
    again = page.post("/run/1/answer", data={**first, "value": "2"}, follow_redirects=False)
    assert again.status_code == 409
    assert "has been given" in again.text
    with Journal(path) as journal, journal.database.writing() as connection:
        connection.execute(schema.waits.update().values(due=1.0))
    assert page.post("/run/1/answer", data={**second, "value": "2"}).status_code == 409
    assert "time is up" in page.get("/run/1").text


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (403, {"token": ""}),
        (403, {"token": "x" * 32}),
        (413, {"value": "x" * 5000}),
        (400, {"task": "one"}),
        (400, {"element": "-1"}),
        (404, {"run": "b"}),
        (409, {"name": "other"}),
    ],
)
def test_what_is_no_form_of_ours_answers_nothing(path, opened, waiting, status, change):
    page = opened(path)
    first, _ = forms_of(page.get("/run/1").text)
    answer = page.post("/run/1/answer", data={**first, "value": "1", **change}, follow_redirects=False)
    assert answer.status_code == status
    assert not any(one.answered for one in waits(path))


def waits(path):
    with Journal(path) as journal:
        return journal.run("a").waits


def test_nobody_without_the_key_and_no_other_site_answers(path, opened, waiting):
    """Not even with the token."""
    page = opened(path)
    first, _ = forms_of(page.get("/run/1").text)
    data = {**first, "value": "1"}
    assert opened(path, cookies={}).post("/run/1/answer", data=data).status_code == 403
    assert opened(path, cookies={}).post(f"/run/1/answer?key={KEY}", data=data).status_code == 403
    for origin in "http://evil.example", "null", f"{BASE}.evil.example":
        assert page.post("/run/1/answer", data=data, headers={"origin": origin}).status_code == 403
    assert page.get("/run/1/answer").status_code == 405
    assert not any(one.answered for one in waits(path))


def test_a_nested_run_is_answered_on_the_page_of_either(path, opened):
    inner, outer = Process("inner"), Process("outer")
    inner.add_task(ask, 1)
    outer.add_task(inner)
    suspended(path, outer)
    page = opened(path)
    [form] = forms_of(page.get("/run/1").text)
    assert form["run"] == "a/0"
    assert forms_of(page.get("/run/2").text) == [form]
    page.post("/run/2/answer", data={**form, "value": "true"})
    assert outer.execute(run_id="a", journal=path) == [[(1, True)]]


def test_hostile_ids_are_shown_harmless(path, opened):
    process = Process(HOSTILE)
    process.add_task(ask, 1)
    suspended(path, process, HOSTILE.replace("\n", ""))
    text = opened(path).get("/run/1").text
    assert "<script>alert" not in text
    assert "‮" not in re.sub(r'value="[^"]*"', "", text)
