"""Calling a part of a run again, on the page: it says what is forgotten, and a form that only it can send has that done."""

import re
from html import unescape

import pytest

from procession import Process, current_task
from procession.journal import Journal
from web_pages import (
    BROKEN,
    HOSTILE,
    _nothing_broken,
    double,
    failing,
    going,
    numbers,
    opened,
    path,
    rows_of,
    work,
)

MADE = []


def note(number):
    MADE.append(number)
    return work(number)


def build():
    """A task, one that takes its value, one that does not, and a map."""
    process = Process("again", "parallel", 2, on_error="return")
    process.task(double, process.task(note, 1))
    process.add_task(note, 2)
    process.map(note, [10, 11, 12])
    return process


@pytest.fixture
def page(path, opened):
    MADE.clear()
    build().execute(journal=path, run_id="a")
    MADE.clear()
    return opened(path)


def form_of(text):
    """Return the fields of the form that forgets; `None` where there is none."""
    form = re.search(r'<form method="post" action="/run/1/rerun">(.*?)</form>', text, re.DOTALL)
    fields = form and re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[1])
    return form and {name: unescape(value) for name, value in fields}


def link_of(text, name):
    found = re.search(rf'<a id="{name}" class="button" href="([^"]*)"', text)
    return found and unescape(found[1])


def dry(path, **chosen):
    with Journal(path) as journal:
        return [(one.task, one.element) for one in journal.rerun("a", **chosen, dry_run=True)]


def test_a_task_is_called_again_in_two_steps(page, path):
    """The first says what follows from it, and changes nothing; the second leads to what goes on with the run."""
    address = link_of(page.get("/run/1/task/0").text, "rerun-this")
    asked = page.get(address).text
    assert rows_of(asked) == ["0 note named", "1 double takes a value of these"]
    assert "2 calls of this run are forgotten" in asked
    assert page.get("/run/1").text.count('class="state completed"') > 1, "nothing is forgotten yet"
    answer = page.post("/run/1/rerun", data=form_of(asked), follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/run/1#next")
    text = page.get("/run/1").text
    assert '<span class="state interrupted">' in text
    assert unescape(re.search('<code id="command">(.*?)</code>', text)[1]) == (
        f"process.execute(journal={path!r}, run_id='a')"
    )
    assert build().execute(journal=path, run_id="a") == [1, 2, 2, [10, 11, 12]]
    assert MADE == [1]


def test_an_element_is_called_again(page, path):
    """With the map as a whole, which has its list; the others stay."""
    asked = page.get(link_of(page.get("/run/1/task/3/1").text, "rerun-this")).text
    assert rows_of(asked)[0] == "3.1 note, element 1 named"
    page.post("/run/1/rerun", data=form_of(asked))
    build().execute(journal=path, run_id="a")
    assert MADE == [11]


def test_what_failed_is_called_again(where, opened):
    """Also of a run that has completed all the same."""
    BROKEN.update((2, 12))
    MADE.clear()
    build().execute(journal=where, run_id="a")
    BROKEN.clear()
    MADE.clear()
    page = opened(where)
    asked = page.get(link_of(page.get("/run/1").text, "rerun-failed")).text
    assert rows_of(asked) == ["2 note failed", "3.2 note, element 2 failed"]
    page.post("/run/1/rerun", data=form_of(asked))
    assert build().execute(journal=where, run_id="a") == [1, 2, 2, [10, 11, 12]]
    assert sorted(MADE) == [2, 12]


def test_a_run_in_which_nothing_failed_has_nothing_to_forget(page):
    asked = page.get("/run/1/rerun").text
    assert "Nothing has failed" in asked
    assert form_of(asked) is None


def test_what_has_not_ended_is_called_in_any_case(path, opened):
    """There is nothing of it to forget."""
    BROKEN.add(1)
    process = Process("in order")
    for number in range(3):
        process.add_task(work, number)
    failing(process, path, "a")
    asked = opened(path).get("/run/1/rerun?task=2").text
    assert "it is called in any case" in asked
    assert form_of(asked) is None


def test_what_has_changed_since_it_was_shown_is_not_forgotten(page, path):
    """The user has not seen what that would be: here the task was forgotten elsewhere meanwhile."""
    form = form_of(page.get("/run/1/rerun?task=0").text)
    with Journal(path) as journal:
        journal.rerun("a", tasks=[1])
    answer = page.post("/run/1/rerun", data=form, follow_redirects=False)
    assert answer.status_code == 409
    assert "look at it again" in answer.text
    assert dry(path, tasks=[0]) == [(0, None)]
    again = form_of(page.get("/run/1/rerun?task=0").text)
    assert page.post("/run/1/rerun", data=again, follow_redirects=False).status_code == 303


def test_a_form_forgets_once(page, path):
    """Sent twice, it finds nothing of what it had shown."""
    form = form_of(page.get("/run/1/rerun?task=0").text)
    assert page.post("/run/1/rerun", data=form, follow_redirects=False).status_code == 303
    assert page.post("/run/1/rerun", data=form, follow_redirects=False).status_code == 409


def test_nothing_is_forgotten_of_a_run_that_goes_on(path, opened, going):
    """It is in use."""
    page = opened(path)
    assert link_of(page.get("/run/1").text, "rerun-failed") is None
    answer = page.get("/run/1/rerun?task=0")
    assert answer.status_code == 409
    token = re.search(r'name="token" value="([^"]+)"', page.get("/run/1").text)[1]
    assert page.post("/run/1/rerun", data={"token": token, "task": "0", "seen": ""}).status_code == 409


def test_a_run_inside_another_one_is_called_again_as_a_task_of_that(path, opened):
    """Its page leads to the outer run."""
    BROKEN.add(0)
    outer = Process("outer", on_error="continue")
    outer.add_task(numbers(1))
    failing(outer, path, "a")
    page = opened(path)
    assert link_of(page.get("/run/2").text, "rerun-failed") == "/run/1/rerun"
    assert page.get("/run/2/rerun?task=0").status_code == 409
    assert rows_of(page.get("/run/1/rerun").text) == ["0/0 work failed"]


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (403, {"token": ""}),
        (403, {"token": "x" * 32}),
        (413, {"seen": "x" * 5000}),
        (400, {"task": "one"}),
        (400, {"task": "-1"}),
        (400, {"element": "1.5"}),
        (400, {"task": "", "element": "1"}),
        (404, {"task": "99"}),
        (404, {"element": "3"}),
        (409, {"seen": ""}),
        (409, {"task": "2"}),
    ],
)
def test_what_is_no_form_of_ours_forgets_nothing(page, path, status, change):
    before = dry(path, tasks=[0, 2, 3])
    form = form_of(page.get("/run/1/rerun?task=0").text)
    assert page.post("/run/1/rerun", data={**form, **change}, follow_redirects=False).status_code == status
    assert dry(path, tasks=[0, 2, 3]) == before


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"origin": "null"}, None])
def test_no_other_site_forgets_anything(page, path, headers):
    """Not even with the token; nor does a request that does not say where it comes from."""
    form = form_of(page.get("/run/1/rerun?task=0").text)
    if headers is None:
        del page.headers["origin"]
    assert page.post("/run/1/rerun", data=form, headers=headers or {}, follow_redirects=False).status_code == 403
    assert dry(path, tasks=[0]) == [(0, None), (1, None)]


def test_nobody_without_the_key_forgets_anything(page, path, opened):
    """Nor sees what that would be; and to look forgets nothing, whatever the address says."""
    form = form_of(page.get("/run/1/rerun?task=0").text)
    stranger = opened(path, cookies={})
    assert stranger.get("/run/1/rerun?task=0").status_code == 403
    assert stranger.post("/run/1/rerun", data=form, follow_redirects=False).status_code == 403
    page.get("/run/1/rerun", params=form)
    assert dry(path, tasks=[0]) == [(0, None), (1, None)]


def test_a_long_list_is_cut_and_counted(path, opened):
    """Whatever the tasks are called."""
    BROKEN.update(range(150))
    process = Process(HOSTILE, "parallel", 2, on_error="return")
    for number in range(150):
        process.add_task(work, number)
    process.execute(journal=path, run_id=HOSTILE)
    asked = opened(path).get("/run/1/rerun").text
    assert len(rows_of(asked)) == 100
    assert "150 calls of this run are forgotten" in asked
    assert "and 50 more" in asked
    assert "<script>alert" not in asked


def chatty():
    return current_task().call(note, 7)


def test_the_calls_that_a_task_has_recorded_are_forgotten_with_it(path, opened):
    """They are made again."""
    process = Process("chatty")
    process.add_task(chatty)
    process.execute(journal=path, run_id="a")
    MADE.clear()
    page = opened(path)
    page.post("/run/1/rerun", data=form_of(page.get("/run/1/rerun?task=0").text))
    process.execute(journal=path, run_id="a")
    assert MADE == [7]
