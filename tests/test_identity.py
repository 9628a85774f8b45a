"""What a callable is called in a fingerprint, and when its code counts beside its name."""

import functools
import operator
import os
import subprocess
import sys
import types
from unittest.mock import MagicMock, Mock

import pytest

from procession import Process, task
from procession._model.task import MapFunction
from procession._plan.fingerprint import Fingerprint, qualified
from test_digest import Client, adder, cached, fetch, limited, plain, short, whole


def renamed(function, name):
    function.__qualname__ = name
    return function


def loaders():
    """Functions and objects that share a name, in pairs of which each does something else."""

    def of(source, how):
        return lambda: how(source)

    def local(source):
        class Load:
            def __call__(self):
                return source

        return Load

    def nested(function):
        inner = Process("inner")
        inner.add_task(function)
        return inner

    def mapped(function):
        inner = Process("inner")
        inner.map(fetch, (n for n in range(3)), constants={"deep": [function]})
        return inner

    def starting_at(default):
        copy = types.FunctionType(fetch.__code__, fetch.__globals__, fetch.__name__, (default,))
        return functools.update_wrapper(copy, fetch)

    return [
        (lambda: "users", lambda: "orders"),
        (lambda: [x + 1 for x in "a"], lambda: [x - 1 for x in "a"]),
        (functools.partial(lambda x: x + 1, 2), functools.partial(lambda x: x - 1, 2)),
        (of(1, lambda x: x + 1), of(1, lambda x: x - 1)),
        (MapFunction(lambda x: x.a), MapFunction(lambda x: x.b)),
        (task(name="load")(fetch), task(name="load")(whole)),
        (task(name="load")(lambda: 1), task(name="load")(lambda: 2)),
        (task(name="load")(len), task(name="load")(functools.partial(max))),
        (types.SimpleNamespace(f=lambda: 1).f, types.SimpleNamespace(f=lambda: 2).f),
        (local("users")(), local("orders")()),
        (local("users"), local("orders")),
        (renamed(lambda: 1, "Client.gone"), renamed(lambda: 2, "Client.gone")),
        (nested(lambda: 1), nested(lambda: 2)),
        (nested(nested(lambda: 1)), nested(nested(lambda: 2))),
        (nested(lambda: 1).execute, nested(lambda: 2).execute),
        (mapped(lambda: 1), mapped(lambda: 2)),
        (functools.cache(lambda: 1), functools.cache(lambda: 2)),
        (functools.cache(of(1, str)), functools.cache(of(2, str))),
        (starting_at(1), starting_at(2)),
    ]


@pytest.mark.parametrize("pair", range(len(loaders())))
def test_what_shares_its_name_is_told_apart_by_its_code(pair):
    """Tasks that have changed places are changed tasks; the same ones, made anew, are not."""
    one, other = loaders()[pair]
    same = loaders()[pair]
    was = plain((one,), (other,))
    assert was.first_difference(plain(*zip(same))) is None
    assert was.changed(plain((other,), (one,))) == {0, 1}
    assert plain((one,)).changed(was) == plain((one,)).changed(plain((one,), (other,))) == {1}
    # As an argument, directly and in what holds it, of one task and of several.
    if getattr(one, "__procession_options__", None) is None:
        assert plain((fetch, one), (fetch, other)).changed(plain((fetch, other), (fetch, one))) == {0, 1}
        assert plain((fetch, {"a": [one], "b": other})).changed(plain((fetch, {"b": one, "a": [other]}))) == {0}
        assert plain((fetch, {"a": [one], "b": other})).changed(plain((fetch, {"b": same[1], "a": [same[0]]}))) == set()


def test_code_that_tells_apart_may_be_told_to_get_a_name():
    """The message says what would be right; with names, bodies are free to change, and lines to move."""
    was = plain((lambda: "users",), (lambda: "orders",))
    assert was.first_difference(plain((lambda: "orders",), (lambda: "users",))) == (
        "task 0 (test_identity:test_code_that_tells_apart_may_be_told_to_get_a_name.<locals>.<lambda>) has other code, "
        "which is what tells those of this name apart: give each a name of its own, as in @task(name=...)"
    )
    users, orders = task(name="users"), task(name="orders")
    was = plain((users(lambda: 1),), (orders(lambda: 2),))
    assert was.changed(plain((users(lambda: 3),), (orders(lambda: 4),))) == set()
    assert was.changed(plain((orders(lambda: 2),), (users(lambda: 1),))) == {0, 1}


def test_the_body_of_one_that_shares_its_name_with_no_other_may_change():
    """Mending is what resuming is for; how often it is a task does not matter, nor what it closes over."""
    assert plain((lambda x: x + 1, 1), (fetch, 2)).changed(plain((lambda x: x - 1, 1), (fetch, 2))) == set()
    was, now = ([(make(n), n) for n in range(3)] for make in (lambda n: lambda x: x + n, lambda n: lambda x: x - n))
    assert plain(*was).changed(plain(*now)) == set()


def test_a_second_one_of_a_name_makes_code_count_from_then_on():
    """What stands at the place of another is not taken for it, and what has stayed is."""
    one, other = (lambda: "users"), (lambda: "orders")
    assert plain((one,)).changed(plain((other,), (one,))) == {0, 1}
    assert plain((one,)).changed(plain((one,), (other,))) == {1}


SCRIPT = """
import sys
sys.path.insert(0, "")
{how}
from procession._plan.fingerprint import fingerprint_of
calls = [(m.fetch, (1,), {{}}), (m.Loader("a").load, (), {{}}), (len, (m.Loader("b"), m.fetch), {{}})]
print(fingerprint_of("p", calls).to_bytes().hex())
"""


def test_a_module_that_was_the_program_is_the_same_when_it_is_imported(tmp_path):
    """As a script, as `-m`, and imported: functions, methods and arguments."""
    body = "class Loader:\n  def __init__(self, x): self.x = x\n  def load(self): pass\ndef fetch(url): pass\n"
    (tmp_path / "pages.py").write_text(
        body
        + "if __name__ == '__main__':\n  import sys; m = sys.modules['__main__']\n"
        + "\n".join(f"  {line}" for line in SCRIPT.format(how="").splitlines() if line)
    )

    def told(*words):
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return Fingerprint.from_bytes(bytes.fromhex(done.stdout))

    imported = told("-c", SCRIPT.format(how="import pages as m"))
    assert imported.names == ("pages:fetch", "pages:Loader.load", "builtins:len")
    assert told("pages.py") == told("-m", "pages") == imported


def test_a_module_that_was_moved_is_the_same_where_its_name_says_so():
    """By the end of its path, if all of its tasks have moved; by an explicit name always."""

    def of(*names):
        fingerprint = plain(*[(fetch, 1)] * len(names))
        which = b"".join(at.to_bytes(4, "little") for at in range(len(names)))
        return fingerprint._replace(names=names, which=which, codes=("",) * len(names))

    for was, now in [
        ("pages:fetch", "app.pages:fetch"),
        ("src.app.pages:fetch", "app.pages:fetch"),
        ("map of pages:fetch", "map of app.pages:fetch"),
        ("fetch (pages:fetch)", "fetch (other:get)"),
        ("map of fetch (pages:fetch)", "map of fetch (other:get)"),
    ]:
        assert of(was).first_difference(of(now)) is None
    for was, now in [
        ("pages:fetch", "mypages:fetch"),
        ("a.pages:fetch", "b.pages:fetch"),
        ("pages:fetch", "app.pages:get"),
        ("pages:fetch", "map of app.pages:fetch"),
        ("fetch (pages:fetch)", "get (pages:fetch)"),
        ("fetch (pages:fetch)", "pages:fetch"),
        ("pages:fetch", "procession:Process 'pages:fetch'"),
    ]:
        assert of(was).first_difference(of(now)) == f"task 0 was {was}, is {now}"
    assert of("a:f", "b.a:f").changed(of("b.a:f", "a:f")) == {0, 1}
    assert of("load (a:f)", "load (b:f)").changed(of("load (b:f)", "load (a:f)")) == {0, 1}


def test_a_function_with_an_explicit_name_may_be_another_one():
    """Also a lambda, or one that was made by a function, as long as it closes over the same."""
    load = task(name="load")

    def near(n):
        return load(lambda x: x + n)

    assert plain((load(fetch), 1)).first_difference(plain((load(whole), 1))) is None
    assert plain((load(fetch), 1)).first_difference(plain((load(lambda x: x), 1))) is None
    assert plain((near(1), 1)).first_difference(plain((load(adder(1)), 1))) is None
    assert plain((near(1), 1)).changed(plain((near(2), 1))) == plain((near(1), 1)).changed(plain((load(len), 1))) == {0}


def test_a_process_in_a_process_is_known_by_the_identities_of_its_tasks():
    """Explicit names stand for functions there too, and code tells apart what shares a name."""

    def holding(*functions):
        inner = Process("inner")
        for function in functions:
            inner.add_task(function)
        return plain((inner,))

    load = task(name="load")
    assert holding(load(fetch)) == holding(load(whole)) != holding(task(name="other")(fetch))
    one, other = (lambda: "users"), (lambda: "orders")
    assert holding(one, other) == holding(one, other) != holding(other, one)
    assert holding(one).changed(holding(other)) == set()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (fetch, "test_digest:fetch"),
        (task(retries=2)(fetch), "test_digest:fetch"),
        (task(name="get")(fetch), "get (test_digest:fetch)"),
        (functools.partial(task(name="get")(fetch), 1), "get (test_digest:fetch)"),
        (MapFunction(task(name="get")(fetch)), "map of get (test_digest:fetch)"),
        (cached, "test_digest:cached"),
        (Client, "test_digest:Client"),
        (Client.of, "test_digest:Client.of"),
        (Client("a").fetch, "test_digest:Client.fetch"),
        (operator.itemgetter(1), "operator:itemgetter"),
        (dict.fromkeys, "builtins:dict.fromkeys"),
        (str.upper, "builtins:str.upper"),
        (Mock(), "unittest.mock:Mock"),
    ],
)
def test_tasks_are_recognised_by_where_their_callables_come_from(function, name):
    """Module and qualified name, after the name that was given."""
    assert qualified(function) == name
    assert plain((function, 1)).name(0) == name


def test_a_name_stands_for_a_function_only_where_it_leads_to_it():
    """A decorated function is its name; another one of that name is what it closes over too."""
    other = limited(4)(whole)
    other.__qualname__ = "short"
    assert plain((short, "u")) == plain((task(retries=1)(short), "u"))
    assert plain((short, "u")).changed(plain((other, "u"))) == {0}


def test_a_mock_is_its_name():
    """What it recorded in one run does not make it another in the next."""
    client = MagicMock(name="client")
    before = plain((client.fetch, 1), (fetch, client))
    client.fetch(1)
    assert plain((client.fetch, 1), (fetch, client)) == before != plain((client.other, 1), (fetch, client))
