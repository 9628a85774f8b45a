"""Names that are templates: what they give is a label, which tells the calls of one function apart."""

import logging
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from labelled_tasks import fetch, fetch_awaited
from procession import Process, task
from procession.cli.main import main
from procession.journal import Journal
from terminals import terminal
from web_pages import BEGUN, HELD, _nothing_broken, hold, opened, path, rows_of

engines = pytest.mark.parametrize("engine", ["in order", "threads", "loop", "executor", "processes"])


@pytest.fixture
def process(engine):
    """Three tasks and a map of three elements."""
    with ThreadPoolExecutor(2) as pool:
        executor = {"executor": pool, "processes": "processes"}.get(engine, "threads")
        process = Process("labels", "sequential" if engine == "in order" else "parallel", 2, executor=executor)
        function = fetch_awaited if engine == "loop" else fetch
        first = process.task(function, "a")
        process.add_task(function, url="b")
        process.add_task(function, first)
        process.map(function, ["x", "y", "z"])
        process.add_task(len, "no template")
        yield process


class Odd:
    """Something that cannot be made text."""

    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fetch {url.host}", "got '{url.host}'"),
        ("fetch {url[0]}", r"got '{url\[0\]}'"),
        ("fetch {url!r}", "got '{url!r}'"),
        ("fetch {url:>10}", "got '{url:>10}'"),
        ("fetch {}", "got '{}'"),
        ("fetch {0}", "got '{0}'"),
        ("fetch {url", "is a template, and here .*write {{ and }}"),
        ("fetch }", "is a template, and here"),
        ("fetch {uri}", "the function takes no parameter 'uri': it takes url, tries"),
    ],
)
def test_a_template_takes_parameters_and_nothing_else(name, said):
    """Refused where it is written, by name."""
    with pytest.raises(ValueError, match=r"task\(name='fetch") as refused:
        task(name=name)(fetch)
    assert refused.match(said)


@pytest.mark.parametrize("function", [lambda *urls: urls, lambda **url: url, dict.fromkeys, partial])
def test_a_template_names_parameters_that_are_known(function):
    """Those that take one value each."""
    with pytest.raises(ValueError, match="takes no parameter 'urls'"):
        task(name="fetch {urls}")(function)


@engines
def test_a_label_stands_beside_the_name(process):
    """Of a task, whether its argument is a value or a handle; a map as a whole has none, nor has a plain name."""
    run = process.start()
    run.result()
    assert [outcome.name for outcome in run.outcomes] == [*["fetch {url}"] * 3, "map of fetch {url}", "len"]
    assert [outcome.label for outcome in run.outcomes] == ["fetch a", "fetch b", "fetch A", None, None]
    summary = run.summary()
    assert "fetch b " in summary
    assert "fetch {url} " not in summary.replace("map of fetch {url}", "")
    assert "fetch b" in run.timeline().svg()


@engines
def test_a_journal_keeps_labels(process, path):
    """Of tasks, and of the elements of maps."""
    process.execute(journal=path, run_id="run")
    with Journal(path) as journal, journal.reader() as reader:
        key = reader.key("run")
        assert [one.label for one in reader.tasks(key)] == ["fetch a", "fetch b", "fetch A", None, None]
        assert [one.label for one in reader.tasks(key, task=3)] == ["fetch x", "fetch y", "fetch z"]
        assert {one.name for one in reader.tasks(key)} == {"fetch {url}", "map of fetch {url}", "len"}
        assert all(one.log is None for one in reader.tasks(key, whole=True))


def test_a_label_is_in_no_log_and_in_no_error(caplog):
    """Arguments may be secret: the template itself is the name there."""
    caplog.set_level(logging.DEBUG, "procession")
    process = Process("labels")
    process.add_task(task(retries=1)(fetch), "broken", tries="secret")
    with pytest.raises(ValueError, match="broken") as failure:
        process.execute()
    assert "task 0 (fetch {url})" in failure.value.__notes__[0]
    assert {record.task_name for record in caplog.records if hasattr(record, "task_name")} == {"fetch {url}"}


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("a" * 10_000, f"get {'a' * 96}…{'a' * 99}"),
        ("\x1b[31m\n\u202e\0", r"get \x1b[31m\n\u202e\x00"),
        ("\0" * 300, None),
        (b"\0" * 10_000, None),
        (range(10**9), "get range(0, 1000000000)"),
        (list(range(10**6)), "get [0, 1, 2, 3, 4, 5, ...]"),
        (Odd(), "get an object of type Odd"),
        ({"day": 1}, "get {'day': 1}"),
        ("{value}", "get {value}"),
    ],
    ids=["long", "hostile", "NULs", "bytes", "range", "list", "odd", "dict", "braces"],
)
def test_a_label_is_short_and_harmless(value, label, path):
    """Whatever the argument is."""

    @task(name="get {value}")
    def get(value):
        pass

    process = Process("labels", "parallel")
    process.add_task(get, value)
    run = process.start()
    run.wait()
    found = run.outcomes[0].label
    assert found.isprintable()
    assert len(found) <= 200
    assert label in (None, found)
    if type(value) is not Odd:
        process.execute(journal=path, run_id="run")
        with Journal(path) as journal:
            assert journal.tasks("run")[0].label == found


def test_braces_are_written_twice():
    """As in `str.format`. Parameters have their defaults."""

    @task(name="{{x}} {number}")
    def double(number=3):
        return 2 * number

    process = Process("labels")
    process.add_task(double)
    process.execute()
    assert process.last_run.outcomes[0].label == "{x} 3"


def test_no_label_is_made_of_a_call_that_cannot_be():
    """It fails, as it would without a template."""
    process = Process("labels", "parallel", on_error="continue")
    process.add_task(fetch)
    process.task(fetch, process.task(fetch, "broken"))
    run = process.start()
    run.wait()
    assert [(outcome.state, outcome.label) for outcome in run.outcomes] == [
        ("failed", None),
        ("failed", "fetch broken"),
        ("skipped", None),
    ]


def test_a_log_goes_with_its_label(path):
    """Both are in the journal, and each is shown by itself."""
    logger = logging.getLogger("labels")
    handler = sys.modules["procession"].TaskLogHandler()
    logger.addHandler(handler)

    @task(name="warn {what}")
    def warn(what):
        logger.warning(what)

    process = Process("labels")
    process.add_task(warn, "careful")
    process.execute(journal=path, run_id="run")
    logger.removeHandler(handler)
    with Journal(path) as journal:
        (found,) = journal.tasks("run")
    assert found.label == "warn careful"
    assert found.log.endswith("WARNING labels: careful")
    assert found.log.startswith("2")


def test_a_journal_without_texts_keeps_no_labels(path):
    """They are made of arguments."""
    with Journal(path, texts=False) as journal:
        process = Process("labels")
        process.add_task(fetch, "a")
        process.map(fetch, "xy")
        process.execute(journal=journal, run_id="run")
        assert {one.label for one in journal.tasks("run")} == {None}


def test_the_page_shows_labels(path, opened):
    """In the table of tasks, that of elements, above a task, and in the timeline."""
    process = Process("labels", "parallel", on_error="continue")
    process.add_task(fetch, "a<b>")
    process.map(fetch, ["x", "broken"])
    process.start(journal=path, run_id="run").wait()
    page = opened(path)
    run = page.get("/run/1").text
    assert "0 fetch a&lt;b&gt; completed" in rows_of(run)[-2]
    assert ">fetch broken</bdi>" in run or "fetch broken</bdi> #1, element 1" in run
    assert "<h1><bdi>fetch a&lt;b&gt;</bdi></h1>" in page.get("/run/1/task/0").text
    elements = rows_of(page.get("/run/1/task/1").text)
    assert ["fetch x completed" in elements[0], "fetch broken failed" in elements[1]] == [True, True]
    assert "fetch a&lt;b&gt;, task 0" in page.get("/run/1/time").text


def test_a_task_that_runs_has_its_label(path, opened, capsys):
    """On the page, and in the terminal."""
    process = Process("labels", "parallel", 1)
    process.add_task(task(name="hold {what}")(lambda what: hold()), "on")
    with Journal(path) as journal:
        run = process.start(journal=journal, run_id="run")
        assert BEGUN.acquire(timeout=30)
        page = opened(path)
        try:
            while "hold on" not in (text := page.get("/run/1").text):
                pass
            assert 'href="/run/1/task/0"' in text
            assert "hold on" in page.get("/").text
            assert main(["show", "run", "--journal", path]) == 0
            assert "running: 0 hold on, for" in capsys.readouterr().out
        finally:
            HELD.release()
            run.wait(30)


def test_the_command_line_shows_labels(path, capsys):
    """Of tasks, and of elements that failed."""
    process = Process("labels", "parallel", on_error="continue")
    process.add_task(fetch, "a")
    process.map(fetch, ["x", "broken"])
    process.start(journal=path, run_id="run").wait()
    assert main(["show", "run", "--journal", path]) == 0
    assert "fetch a " in capsys.readouterr().out
    assert main(["show", "run", "--failed", "--journal", path]) == 0
    assert "1.1 fetch broken" in capsys.readouterr().out


LONG = "https://example.org/archive/of/everything/that/was/ever/written/down/by/anybody/anywhere/page"


def test_long_labels_that_differ_at_their_ends_are_told_apart_everywhere(path, opened, capsys):
    """They are shortened in the middle: in summary, timeline and graph, on the command line, and on each page."""
    process = Process("labels", "parallel", on_error="return")
    urls = [f"{LONG}/{number}" for number in range(3)]
    for url in urls:
        process.add_task(fetch, url)
    process.map(fetch, urls)
    process.execute(journal=path, run_id="run")
    run = process.last_run
    assert main(["show", "run", "--journal", path]) == 0
    page = opened(path)
    texts = [run.summary(), run.timeline().svg(), capsys.readouterr().out]
    texts += [page.get(f"/run/1{part}").text for part in ("", "/graph", "/task/3", "/time")]
    for text in texts:
        found = {at for at in range(3) if re.search(rf'fetch https[^<>"\n]*/{at}(?![\d"])', text)}
        assert found == {0, 1, 2}, text


RUNS = """
import sys
from procession import Process, task

@task(name="hold {url} {side}")
def hold(url, side="left"):
    sys.stdin.readline()
    if url.endswith("0"):
        raise ValueError("no")

urls = [f"https://example.org/archive/of/everything/{number}" for number in range(3)]
process = Process("pages", "parallel", 1, on_error="return")
process.add_task(hold, urls[0])
process.map(hold, urls, constants={"side": "right"})
process.execute(progress=True)
"""


def test_bars_show_what_runs_where_there_is_room(terminal):
    """The label of a task, or of an element, in a run without a journal; on narrow terminals the bars come first."""
    wide, narrow = terminal(RUNS, columns=130), terminal(RUNS, columns=80)
    wide.until(lambda rows: rows[-1].endswith("hold https://example…f/everything/0 left"))
    narrow.until(lambda rows: "0/4" in rows[-1])
    assert "https" not in narrow.text
    for shown in wide, narrow:
        shown.key()
    for number in range(3):
        wide.until(lambda rows, at=number: rows[-1].endswith(f"hold https://example…/everything/{at} right"))
        for shown in wide, narrow:
            shown.key()
    wide.end()
    narrow.end()
    assert "task 0 (hold https://example…f/everything/0 left) failed" in wide.text
    assert not wide.rows[-2].endswith(("left", "right"))


@pytest.mark.parametrize("journal", [None, "runs.db"])
def test_a_label_of_an_element_has_the_constants_of_its_map(tmp_path, journal):
    """They are parameters like any others."""

    @task(name="power {number} of {exponent}")
    def power(number, *, exponent):
        return number**exponent

    process = Process("labels", "parallel")
    exponent = process.task(int, "3")
    process.map(power, [2], constants={"exponent": exponent})
    process.execute(journal=None if journal is None else tmp_path / journal, run_id=None if journal is None else "run")
    assert process.last_run._run_state.label(1, 0) == "power 2 of 3"
    if journal is not None:
        with Journal(tmp_path / journal) as recorded, recorded.reader() as reader:
            assert [one.label for one in reader.tasks(reader.key("run"), task=1)] == ["power 2 of 3"]


def test_a_signature_that_cannot_be_told_is_refused_plainly():
    """Python runs code of the user to tell it: from 3.14 on that of annotations, always that of `__signature__`."""

    class Odd:
        @property
        def __signature__(self):
            return Missing  # noqa: F821

        def __call__(self, url):
            pass

    with pytest.raises(ValueError, match="takes no parameter 'url': none of its parameters has a name that is known"):
        task(name="fetch {url}")(Odd())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated at once")
def test_annotations_are_not_evaluated_for_labels():
    """They may name what is only there for type checkers."""
    found = {}
    exec("def get(url: Missing): return url", found)
    process = Process("labels")
    process.add_task(task(name="get {url}")(found["get"]), "a")
    process.execute()
    assert process.last_run.outcomes[0].label == "get a"
