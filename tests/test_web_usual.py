"""Whether a run is as usual: the page shows it beside the runs of its process."""

import re
from dataclasses import replace

import pytest

from procession.journal import Journal
from procession.web.usual import compared_with
from web_pages import BROKEN, _nothing_broken, failing, numbers, opened, path


def aged(where, **took):
    """Have runs begin a minute after each other and take so many seconds."""
    with Journal(where) as journal, journal.database.writing() as connection:
        for number, (run_id, seconds) in enumerate(took.items()):
            begin = 1_000_000_000.0 + 60 * number
            connection.exec_driver_sql(
                f"UPDATE procession_runs SET started_at = {begin}, ended_at = {begin + seconds} WHERE id = '{run_id}'"
            )


def strip_of(text):
    """Return what each bar of the strip says, its height, and where it leads."""
    strip = re.search(r'<svg class="strip".*?</svg>', text, re.DOTALL)[0]
    found = re.findall(r'href="([^"]*)"><title>(.*?)</title>.*?y="[^"]*" width="8" height="([^"]*)"', strip)
    return [(said, float(height), address) for address, said, height in found]


def test_a_run_is_shown_beside_those_before_it(where, opened):
    """A strip of the last runs of its process, the run before and the one after, and how unusual its time is."""
    for run_id in "abc":
        numbers(1).execute(journal=where, run_id=run_id)
    numbers(1, "other").execute(journal=where, run_id="x")
    BROKEN.add(0)
    failing(numbers(1), where, "d")
    BROKEN.clear()
    numbers(1).execute(journal=where, run_id="e")
    numbers(1).execute(journal=where, run_id="f")
    aged(where, a=10, b=12, c=11, x=1, d=2, e=26, f=11)
    page = opened(where)
    text = page.get("/run/6").text
    assert strip_of(text) == [
        ("a: completed, 10 s", 10.0, "/run/1"),
        ("b: completed, 12 s", 12.0, "/run/2"),
        ("c: completed, 11 s", 11.0, "/run/3"),
        ("d: failed, 2 s", 2.0, "/run/5"),
        ("e: completed, 26 s", 26.0, "/run/6"),
    ]
    assert "2.4 times the usual 11 s" in text
    assert 'rel="prev" href="/run/5"' in text
    assert 'rel="next" href="/run/7"' in text
    assert "usually 11" in page.get("/run/7").text
    assert "usual" not in page.get("/run/3").text.partition("</dl>")[0], "two runs before it are too few"
    assert 'class="history"' not in page.get("/run/4").text


@pytest.mark.parametrize(
    ("took", "said"),
    [
        (4.0, "about 8 s left: of its last 4 good runs, half took 11.2 s to 13.9 s"),
        (13.0, "soon over: of its last 4 good runs"),
        (20.0, "longer than usual: of its last 4 good runs"),
    ],
)
def test_a_run_that_goes_on_says_how_long_it_may_take(path, took, said):
    """By what its last good runs took, and how sure that is."""
    numbers(1).execute(journal=path, run_id="run")
    with Journal(path) as journal:
        info = replace(journal.run("run"), status="running", ended_at=None)
    assert compared_with(info, took, [11.0, 12.0, 12.0, 14.5]).startswith(said)


@pytest.mark.parametrize("chosen", [1, 2])
def test_any_two_runs_of_a_process_are_compared(where, opened, chosen):
    """The page of the comparison offers the others."""
    for run_id in "abc":
        numbers(2).execute(journal=where, run_id=run_id)
    page = opened(where)
    assert 'href="/run/3/compared?with=2">Compare with the run before' in page.get("/run/3").text
    text = page.get(f"/run/3/compared?with={chosen}").text
    assert re.findall(r'<option value="(\d)"( selected)?', text) == [
        (str(key), " selected" if key == chosen else "") for key in (2, 1)
    ]
    assert f'href="/run/{chosen}"' in text
    assert "Compared with another run" in text


def small_strips_of(text):
    """Return what the strips on the list say of each run, by the process they stand for."""
    found = re.findall(r'<a id="history\d+" href="([^"]*)">(.*?)</a>', text, re.DOTALL)
    return {address: re.findall(r"<title>(.*?)</title>", strip) for address, strip in found}


def test_the_list_shows_the_last_runs_of_each_process(path, opened):
    """A strip for each, the one that ran last first; it leads to the runs of that process."""
    for run_id in "abc":
        numbers(1).execute(journal=path, run_id=run_id)
    BROKEN.add(0)
    failing(numbers(1, "other <b>"), path, "x")
    BROKEN.clear()
    aged(path, a=10, b=12, c=11, x=1)
    page = opened(path)
    text = page.get("/").text
    assert small_strips_of(text) == {
        "?process=other+%3Cb%3E": ["x: failed, 1 s"],
        "?process=numbers": ["a: completed, 10 s", "b: completed, 12 s", "c: completed, 11 s"],
    }
    assert "usually 11 s" in text
    assert list(small_strips_of(page.get("/?process=numbers").text)) == ["?process=numbers"]
    for address in "/?q=a", "/?status=failed", "/?before=3":
        assert small_strips_of(page.get(address).text) == {}


def test_strips_have_thirty_runs_and_twelve_processes_at_most(path, opened):
    """However many there are: the page stays light, and what it takes does not grow with the journal."""
    numbers(1, "first").execute(journal=path, run_id="first")
    with Journal(path) as journal, journal.database.writing() as connection:
        for number in range(10_000):
            name = "often" if number % 2 else f"process {number % 80}"
            connection.exec_driver_sql(
                "INSERT INTO procession_runs (parent, id, process, codec, status, executions, created_at, started_at, "
                "ended_at, progress, cancelling, origin) SELECT parent, ?, ?, codec, status, executions, created_at, "
                "started_at, ended_at, progress, cancelling, origin FROM procession_runs WHERE id = 'first'",
                (f"run {number}", name),
            )
    text = opened(path).get("/").text
    strips = small_strips_of(text)
    assert len(strips) == 12
    assert strips["?process=often"][-1].startswith("run 9999: completed, ")
    assert len(strips["?process=often"]) == 30
    assert len(text) < 150_000


def test_a_run_of_a_strip_that_nobody_executes_is_interrupted(path, opened):
    """As in the list below."""
    numbers(1).execute(journal=path, run_id="a")
    with Journal(path) as journal, journal.database.writing() as connection:
        connection.exec_driver_sql("UPDATE procession_runs SET status = 'running', ended_at = NULL")
    assert small_strips_of(opened(path).get("/").text) == {"?process=numbers": ["a: interrupted"]}
