"""Outcomes: what the value of a task is that has none."""

import pytest

from procession import Process, ValueUnavailableError


def fail():
    raise KeyError("no such page")


def test_the_value_of_a_failed_task_raises_from_what_the_task_raised():
    """And quotes it, so that nobody has to look for the reason."""
    process = Process("pages", "parallel", on_error="return")
    process.add_task(fail)
    process.add_task(len, "abc")
    values = []
    with pytest.raises(
        ValueUnavailableError, match=r"task 0 \(fail, failed\) has no value: it raised KeyError: 'no"
    ) as info:
        values += [outcome.value for outcome in sorted(process.start(), key=lambda outcome: -outcome.index)]
    assert info.value.__cause__ is process.last_run.outcomes[0].error
