"""A part of a run that is called again waits again: what it was answered before is forgotten with its record."""

import pytest

from procession import Process, RunSuspendedError, current_task
from procession.testing import memory_journal


def ask(number):
    return number, current_task().wait_for("approval")


@pytest.fixture
def journal():
    with memory_journal() as opened:
        yield opened


def test_a_task_that_is_called_again_waits_for_another_answer(journal):
    process = Process("asks")
    process.task(ask, 1)
    with pytest.raises(RunSuspendedError):
        process.execute(run_id="a", journal=journal)
    journal.answer("a", "approval", "yes")
    assert process.execute(run_id="a", journal=journal) == [(1, "yes")]
    assert [one.task for one in journal.rerun("a", tasks=[0])] == [0]
    with pytest.raises(RunSuspendedError):
        process.execute(run_id="a", journal=journal)
    journal.answer("a", "approval", "no")
    assert process.execute(run_id="a", journal=journal) == [(1, "no")]


def test_an_element_that_is_called_again_waits_for_another_answer_alone(journal):
    process = Process("asks", "parallel")
    process.map(ask, [1, 2])
    with pytest.raises(RunSuspendedError):
        process.execute(run_id="a", journal=journal)
    for element in 0, 1:
        journal.answer("a", "approval", "yes", element=element)
    assert process.execute(run_id="a", journal=journal) == [[(1, "yes"), (2, "yes")]]
    journal.rerun("a", elements=[(0, 1)])
    with pytest.raises(RunSuspendedError, match="element 1 waits for 'approval'"):
        process.execute(run_id="a", journal=journal)
    journal.answer("a", "approval", "no")
    assert process.execute(run_id="a", journal=journal) == [[(1, "yes"), (2, "no")]]


def test_a_suspended_run_can_have_a_part_of_it_called_again(journal):
    process = Process("asks", "parallel")
    process.task(abs, -1)
    process.task(ask, 1)
    with pytest.raises(RunSuspendedError):
        process.execute(run_id="a", journal=journal)
    assert [one.task for one in journal.rerun("a", tasks=[0])] == [0]
    journal.answer("a", "approval", "yes")
    assert process.execute(run_id="a", journal=journal) == [1, (1, "yes")]
