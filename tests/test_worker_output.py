"""What tasks print in workers: it comes whole."""

import pytest

import pool_jobs
from barriers import hall
from pool_fixtures import workers
from programs import program

__all__ = ["workers"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lines_of_several_workers_are_not_torn(workers, capfd, monkeypatch, unbuffered):
    """Whatever the program prints to, and what a worker has printed last is there when it has ended."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    executor = workers(2)
    with hall() as at:
        first = at("a has printed", 2)
        end = at("both have", 2)
        futures = [
            executor.submit(pool_jobs.print_lines, "a", 20, [], [first, end]),
            executor.submit(pool_jobs.print_lines, "b", 20, [first], [end]),
        ]
        for future in futures:
            future.result(30)
    executor.submit(pool_jobs.print_unended, "the end").result(30)
    executor.shutdown()
    out, err = capfd.readouterr()
    for text in out.removesuffix("the end"), err:
        assert sorted(text.splitlines()) == sorted(
            f"{letter * 1500} {letter * 1500}" for letter in "ab" for _ in range(20)
        )
    assert out.endswith("\nthe end")


KILLED = """
    import errands, pool_jobs, time
    from procession import Process, task

    def print_and_hang(name):
        print("a line")
        print("and a piece", end="")
        open(name, "x").close()
        time.sleep(60)

    if __name__ == "__main__":
        process = Process("prints", "parallel", 2, executor="processes", on_error="return")
        process.add_task(task(timeout=3)(print_and_hang), "there")
        process.execute()
"""


def test_lines_that_were_printed_are_there_though_the_worker_is_killed(tmp_path):
    """Up to the last whole line."""
    out, err = program(tmp_path, KILLED).communicate(timeout=60)
    assert (out, err) == ("a line\n", "")
