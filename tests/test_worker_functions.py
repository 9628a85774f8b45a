"""Functions on their way to workers: what can be imported there goes by name, whatever is around it."""

from functools import partial

import pytest

import scoring
from errands import called, same
from pool_fixtures import workers
from procession import Process, task
from programs import program

__all__ = ["workers"]

SHAPES = {
    "plain": scoring.score,
    "timeout": task(timeout=9)(scoring.score),
    "retries": task(retries=1)(scoring.score),
    "name": task(name="n")(scoring.score),
    "options twice": task(retries=1)(task(name="n")(scoring.score)),
    "partial": partial(scoring.score),
    "partial with options": task(timeout=9)(partial(scoring.score)),
    "options in a partial": partial(task(timeout=9)(scoring.score)),
    "bound method": scoring.Scorer().score,
    "bound method with options": task(retries=1)(scoring.Scorer().score),
    "decorated there": scoring.decorated,
    "decorated there, with options": task(timeout=9)(scoring.decorated),
    "decorated here": scoring.timed(scoring.score),
    "not at the top": scoring.scorer(),
    "a lambda around it": lambda sheet: scoring.score(sheet),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_model_of_a_module_is_loaded_once_by_each_worker(workers, tmp_path, shape):
    """The function works on the globals of its module, in every batch, beside calls that go by value."""
    executor = workers(1)
    process = Process("shapes", "parallel", 1, executor=executor)
    for _ in range(10):
        process.add_task(SHAPES[shape], str(tmp_path))
        process.add_task(lambda: True)
    assert process.execute() == [True] * 20
    assert executor.submit(SHAPES[shape], str(tmp_path)).result(30)
    pid = executor.submit(scoring.os.getpid).result(30)
    assert called(tmp_path, f"loads {pid}") == 1


def test_options_travel_with_a_function_that_is_an_argument(workers):
    """A task may run it in a run of its own."""
    executor = workers(1)
    named = task(name="inner")(same)
    process = Process("outer", "parallel", executor=executor)
    process.add_task(name_inside, named)
    assert process.execute() == ["inner"]


def name_inside(function):
    process = Process("inner")
    process.add_task(function, 1)
    process.execute()
    return process.last_run.outcomes[0].name


def test_functions_of_the_main_module_go_by_name_in_every_shape(tmp_path):
    """Beside what goes by value, too, as what stands only under the guard does."""
    child = program(
        tmp_path,
        """
        import os
        from functools import partial
        from procession import Process, task

        model = None

        def score(number):
            global model
            if model is None:
                model = "big"
                open(f"loads {os.getpid()}", "a").write("x")
            return number()

        @task(retries=2)
        def with_options(number):
            return score(number)

        class Scorer:
            def score(self, number):
                return score(number)

            @classmethod
            def of_class(cls, number):
                return score(number)

            @staticmethod
            def static(number):
                return score(number)

            def __call__(self, number):
                return score(number)

        if __name__ == "__main__":
            three = 3
            shapes = [
                score,
                task(timeout=9)(score),
                partial(score),
                with_options,
                Scorer().score,
                partial(Scorer().score),
                task(retries=1)(Scorer().score),
                Scorer.of_class,
                Scorer().of_class,
                Scorer.static,
                Scorer(),
                partial(Scorer()),
                task(timeout=9)(Scorer()),
            ]
            process = Process("main", "parallel", 1, executor="processes")
            for function in shapes * 3:
                process.add_task(function, lambda: three)  # and so nothing of the call is pickled by pickle alone
            print(process.execute() == [3] * len(shapes) * 3)
            print([os.path.getsize(name) for name in os.listdir() if name.startswith("loads")])
        """,
    )
    out, err = child.communicate(timeout=60)
    assert (out, err) == ("True\n[1]\n", "")


def test_without_cloudpickle_functions_with_options_go_by_name(workers, monkeypatch):
    """Nothing of them has to go by value."""
    from procession._remote.wire import serialize

    monkeypatch.setattr(serialize, "by_value", lambda: None)
    assert workers(1).submit(task(timeout=9)(same), 1).result(30) == 1
