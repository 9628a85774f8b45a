"""A run as a table: rows for programs, and HTML for a notebook."""

import sys
from types import ModuleType

import pytest

from procession import Process, task
from procession.observe.meter import Reading
from procession.observe.notebook import _row


def fail_at_two(number):
    if number == 2:
        raise ValueError("<b>two</b>\nand more")
    return number


def started(on_error="return"):
    process = Process("<i>rows", "parallel", 2, on_error=on_error)
    process.task(fail_at_two, 1)
    process.task(task(retries=1)(fail_at_two), 2)
    process.map(fail_at_two, range(3))
    process.map(abs, [-1])
    run = process.start()
    run.wait(50)
    return run


def test_a_data_frame_of_outcomes_says_what_makes_one():
    """What pandas asks for is named, with what does it."""
    with pytest.raises(AttributeError, match=r"no attribute 'ndim': .*run\.to_frame\(\)"):
        _ = started().outcomes.ndim
    pandas = pytest.importorskip("pandas")
    with pytest.raises(AttributeError, match=r"run\.to_frame\(\)"):
        pandas.DataFrame(started().outcomes)


def test_tasks_and_elements_are_rows():
    """Each with how it ended, what it returned or raised, and how often it was called."""
    rows = started().to_dicts()
    assert [(row["index"], row["element"], row["state"], row["value"], row["attempts"]) for row in rows] == [
        (0, None, "completed", 1, 1),
        (1, None, "failed", None, 2),
        (2, 0, "completed", 0, 1),
        (2, 1, "completed", 1, 1),
        (2, 2, "failed", None, 1),
        (3, 0, "completed", 1, 1),
    ]
    assert [type(row["error"]).__name__ for row in rows if row["error"] is not None] == ["ValueError", "ValueError"]
    assert rows[0]["start"] > 0 and rows[0]["duration"] > 0
    assert [*rows[0]] == ["index", "name", "element", "state", "value", "error", "attempts", "start", "duration"]


def test_values_that_belong_to_the_caller_of_execute_are_missing():
    """And nothing else stands in their place; those with a handle are there."""
    process = Process("handed over")
    process.add_task(len, "abc")
    process.task(len, "ab")
    process.execute()
    rows = process.last_run.to_dicts()
    assert "value" not in rows[0] and rows[1]["value"] == 2


def test_a_map_that_failed_as_a_whole_is_one_row():
    """Its elements are gone."""
    rows = started("continue").to_dicts()
    assert [(row["index"], row["element"], row["state"]) for row in rows][2:] == [
        (2, None, "failed"),
        (3, 0, "completed"),
    ]


def test_a_frame_of_pandas():
    """Errors are text, so that it can be written anywhere."""
    frame = started().outcomes.to_frame()
    assert list(frame["error"].dropna()) == ["ValueError: <b>two</b> …"] * 2
    assert len(frame) == len(started().to_frame()) == 6


def test_a_frame_is_of_the_library_that_is_in_use_or_there(monkeypatch):
    """Else it says what to install."""
    polars = ModuleType("polars")
    polars.DataFrame = lambda rows, **options: ("polars", len(rows), options)
    run = started()
    monkeypatch.setitem(sys.modules, "polars", polars)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert run.to_frame() == ("polars", 6, {"strict": False, "infer_schema_length": None})
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        run.to_frame()


def test_a_notebook_shows_a_run_as_a_table():
    """With names and messages as text, and red what failed."""
    said = started()._repr_html_()
    assert "&lt;i&gt;rows" in said and "&lt;b&gt;two" in said
    assert "<i>" not in said.replace("<i></i>", "") and "<b>two" not in said
    assert said.count("<tr>") == 5
    assert said.count(';color:#c8431b">failed</td>') == 2


def test_bars_of_a_notebook_turn_red_where_something_failed():
    """And say no total where nobody knows it."""
    assert "accent-color:#c8431b" in _row(Reading("part", 2, 1, 3, None, None))
    assert "accent-color" not in _row(Reading("part", 2, 0, 3, None, None))
    assert "max=" not in _row(Reading("part", 2, 0, None, None, None))
