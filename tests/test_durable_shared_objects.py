"""Objects that several tasks take and change: a run that would call the rest with the object as it was is refused."""

import pytest

from procession import PlanChangedError, Process, current_task

READY = {}


@pytest.fixture
def path(tmp_path):
    READY.clear()
    return tmp_path / "runs.db"


def fill(row):
    """Change a row, unless it is the second one and nothing is ready."""
    if row[0] == 2 and not READY:
        raise ConnectionError("not yet")
    row.append(row[0] * 10)
    return True


def total(rows, *_after):
    return sum(map(sum, rows))


def over_a_list(process, rows):
    process.task(total, rows, process.map(fill, rows))


def over_a_generator(process, rows):
    process.task(total, rows, process.map(fill, (row for row in rows)))


def over_an_iterator(process, rows):
    process.task(total, rows, process.map(fill, iter(rows)))


def over_pairs(process, rows):
    process.task(total, rows, process.map(fill_pair, enumerate(rows)))


def fill_pair(pair):
    return fill(pair[1])


def in_a_nested_run(process, rows):
    inner = Process("inner")
    for row in rows:
        inner.add_task(fill, row)
    process.task(total, rows, process.task(inner))


def in_a_run_nested_twice(process, rows):
    innermost, inner = Process("innermost"), Process("inner")
    for row in rows:
        innermost.add_task(fill, row)
    inner.add_task(innermost)
    process.task(total, rows, process.task(inner))


def of_another_task(process, rows):
    rows = process.task(list, rows)
    process.task(total, rows, process.map(fill, rows))


WAYS = [
    over_a_list,
    over_a_generator,
    over_an_iterator,
    over_pairs,
    in_a_nested_run,
    in_a_run_nested_twice,
    of_another_task,
]


def build(way, first=1):
    process = Process("rows", "parallel", 1)
    way(process, [[number] for number in range(first, first + 3)])
    return process


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_has_changed_part_of_an_object_is_refused(way, path):
    """What is recorded of the part is not done again; the next task would see the rest of the changes only."""
    with pytest.raises((ConnectionError, ExceptionGroup)):
        build(way).execute(run_id="a", journal=path)
    READY["now"] = True
    with pytest.raises(
        PlanChangedError, match=r"take the same object of type .*, and only part of task \d is recorded"
    ):
        build(way).execute(run_id="a", journal=path)
    assert build(way).execute(run_id="a", journal=path, allow_changes=True)[-1] == 66
    assert build(way).execute(run_id="a", journal=path)[-1] == 66


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_has_recorded_nothing_of_the_change_goes_on(way, path):
    """All of it is made again."""
    with pytest.raises((ConnectionError, ExceptionGroup)):
        build(way, first=2).execute(run_id="a", journal=path)
    READY["now"] = True
    assert build(way, first=2).execute(run_id="a", journal=path)[-1] == 99


@pytest.mark.parametrize("way", [over_a_list, over_a_generator, over_pairs])
def test_an_object_that_was_not_changed_is_no_reason_to_refuse(way, path, monkeypatch):
    """Nor is a task that took it and failed."""
    monkeypatch.setitem(globals(), "fill", look)
    with pytest.raises((ConnectionError, ExceptionGroup)):
        build(way).execute(run_id="a", journal=path)
    READY["now"] = True
    assert build(way).execute(run_id="a", journal=path)[-1] == 6


def look(row):
    if row[0] == 2 and not READY:
        raise ConnectionError("not yet")
    return True


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_recorded_whole_is_returned(way, path):
    """However its tasks have changed what they share."""
    READY["now"] = True
    assert build(way).execute(run_id="a", journal=path)[-1] == 66
    assert build(way).execute(run_id="a", journal=path)[-1] == 66


def test_what_a_generator_gives_and_a_later_task_takes_is_watched_from_then_on(path):
    """The task changes it, and fails afterwards; the element that saw it as it was is recorded."""

    def build_process():
        process, rows = Process("rows", "parallel", 1), [[1]]
        process.task(change_or_fail, rows, process.map(len, (row for row in rows)))
        return process

    with pytest.raises(ConnectionError):
        build_process().execute(run_id="a", journal=path)
    READY["now"] = True
    with pytest.raises(PlanChangedError, match="take the same object"):
        build_process().execute(run_id="a", journal=path)


def change_or_fail(rows, lengths):
    rows[0].append(2)
    if not READY:
        raise ConnectionError("not yet")
    return lengths


def test_a_task_that_makes_its_change_again_is_no_reason_to_refuse(path):
    """Its recorded calls are not made again; what it does to the object itself is done again."""

    def build_process():
        process, rows = Process("rows", "parallel", 1), []
        process.task(total, rows, process.task(collect, rows))
        return process

    with pytest.raises(ConnectionError):
        build_process().execute(run_id="a", journal=path)
    READY["now"] = True
    assert build_process().execute(run_id="a", journal=path)[-1] == 7


def collect(rows):
    rows.append([current_task().call(int, "7")])
    if not READY:
        raise ConnectionError("not yet")
