"""Private names of other packages: each that the package uses stands in the documentation, with its reason.

A private name begins with an underscore and does not end with two. How a use is found, in the syntax trees of all
modules:

- an import of a private module or name: `import _thread`, `from asyncio import _get_running_loop`;
- an attribute: `pool._threads`. On `self` and `cls` it is the package's own if the class, or a class of the package that
  it is based on, defines it. On anything else it is the package's own if a class or module of the package that is named
  in the same file defines it;
- a text that as a whole is a private name, wherever it stands: `getattr(loop, "_ready")`. It is the package's own if the
  same file or a class named in it defines the name.

Not found, because only running the code could tell: a name that is put together from parts, and a private attribute of
another package's object in a file that names a class of the package with an attribute of the same name.
"""

import ast
import gc
import inspect
import re
import threading
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "procession"
PAGE = ROOT / "docs" / "architecture.md"
PRIVATE = re.compile(r"_(?!_)\w*(?<!__)|__\w+(?<!__)")

DOCUMENTED = {"_asdict", "_exit", "_fields", "_getframe", "_mapping", "_make", "_replace"}
"""Public in spite of the underscore: their documentation offers them. (os, sys, typing.NamedTuple; SQLAlchemy's rows.)"""

PROTOCOLS = {"_repr_html_", "_repr_mimebundle_", "_repr_svg_"}
"""Methods that IPython looks for in an object that it shows."""

OWN_TEXTS = {"_definition", "_drives_tasks", "_run"}
"""Names of the package that a text speaks of where neither their class nor their module is named: attributes of
`Process`, which the rooms below must not import, and a module that `procession` imports late."""


class Module(NamedTuple):
    """What matters here of one file."""

    tree: ast.Module
    defined: set[str]
    """Private names that the module defines outside of classes, or imports from the package."""
    classes: dict[str, set[str]]
    """The private names that each class of the module defines, by the name of the class."""
    bases: dict[str, list[str]]
    named: set[str]
    """Every name in the file, which is how classes of the package are spoken of."""


def is_private(name: str) -> bool:
    """Return whether a name belongs to whoever wrote it."""
    return bool(PRIVATE.fullmatch(name)) and name not in DOCUMENTED | PROTOCOLS and name != "_"


def read(source: str) -> Module:
    """Return what matters here of a file."""
    tree = ast.parse(source)
    module = Module(tree, set(), {}, {}, set())
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            module.named.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            module.named.update(re.findall(r"\w+", node.value) if len(node.value) < 100 else ())  # annotations
        elif isinstance(node, ast.ImportFrom):
            module.named.update(alias.name for alias in node.names)
            if (node.module or "").startswith("procession"):
                module.defined.update(alias.asname or alias.name for alias in node.names)
                module.named.update((node.module or "").split("."))
        elif isinstance(node, ast.ClassDef):
            module.defined.add(node.name)
            module.classes[node.name] = set(defined_in(node))
            module.bases[node.name] = [base.id for base in map(unsubscripted, node.bases) if isinstance(base, ast.Name)]
        elif isinstance(node, ast.arg):
            module.defined.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            module.defined.add(node.name)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            module.defined.add(node.id)
    return module


def unsubscripted(node: ast.expr) -> ast.expr:
    """Return the class in `Class[Parameter]`."""
    return node.value if isinstance(node, ast.Subscript) else node


def defined_in(kind: ast.ClassDef) -> Iterator[str]:
    """Yield the names that a class defines: methods, variables, slots, and what its methods assign to `self`."""
    for node in ast.walk(kind):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__slots__" for t in node.targets
        ):
            yield from (part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            yield node.attr


def is_self(node: ast.expr) -> bool:
    """Return whether an expression is the object or class whose method this is."""
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


@cache
def package() -> dict[str, Module]:
    """Return all modules of the package, by path."""
    gc.collect()  # CPython 3.11 fails to parse where what other tests have left is finalized meanwhile
    return {
        path.relative_to(SOURCES).as_posix(): read(path.read_text(encoding="utf-8")) for path in SOURCES.rglob("*.py")
    }


def uses(module: Module, others: dict[str, Module]) -> set[str]:
    """Return the private names of other packages that a module uses."""
    classes: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for other in (*others.values(), module):
        for name, defined in other.classes.items():
            classes[name] = classes.get(name, set()) | defined
            bases[name] = bases.get(name, []) + other.bases[name]

    def inherited(name: str) -> set[str]:
        return classes.get(name, set()).union(*(inherited(base) for base in bases.get(name, ()) if base != name))

    near = module.defined.union(*(inherited(name) for name in module.named & classes.keys()))
    near |= {name for defined in module.classes.values() for name in defined}
    near |= set().union(*(other.defined for path, other in others.items() if Path(path).stem in module.named))

    found: set[str] = set()

    def visit(node: ast.AST, kind: str | None) -> None:
        if isinstance(node, ast.ClassDef):
            kind = node.name
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("procession"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            own = inherited(kind) if is_self(node.value) and kind is not None else near
            names = [] if node.attr in own else [node.attr]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in near | OWN_TEXTS:
            names = [node.value]
        found.update(name for name in names if is_private(name))
        for child in ast.iter_child_nodes(node):
            visit(child, kind)

    visit(module.tree, None)
    return found


def uses_in(source: str) -> set[str]:
    """Return the private names of other packages that a text uses, as a module of the package."""
    return uses(read(source), package())


def listed() -> set[tuple[str, str]]:
    """Return the names in the table of the documentation, each with a file that uses it."""
    _, _, text = PAGE.read_text(encoding="utf-8").partition("## Private names of other packages\n")
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w/.]+)` \| .+ \| .+ \|$", text.partition("\n## ")[0], re.MULTILINE)
    return {(name.rpartition(".")[2], path) for name, path in rows}


def overridden(kind: type, defined: set[str]) -> set[str]:
    """Return those of the names that a class defines which are private in a class of another package below it."""
    theirs = [base for base in kind.__mro__ if not base.__module__.startswith("procession")]
    return {name for name in defined if is_private(name) and any(name in vars(base) for base in theirs)}


def test_every_private_name_is_listed_with_its_reason() -> None:
    """None comes, moves or goes without the documentation saying why it is used and what happens where it is gone."""
    assert listed() == {(name, path) for path, module in package().items() for name in uses(module, package())}


def test_no_class_hides_a_private_name_of_its_base() -> None:
    """No class of the package replaces a private method of the class of another package that it is based on."""
    hidden = {}
    for path, read_module in package().items():
        if path == "_remote/backends/ray.py" or path.endswith("__main__.py"):
            continue  # not everyone who tests has Ray
        module = import_module(".".join(["procession", *Path(path).with_suffix("").parts]).removesuffix(".__init__"))
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and name in read_module.classes:
                hidden[name] = overridden(kind, read_module.classes[name])
    assert {name: names for name, names in hidden.items() if names} == {}
    assert overridden(type("Worker", (threading.Thread,), {}), {"_target", "_delete", "_own"}) == {"_delete"}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import _thread", "_thread"),
        ("from concurrent.futures import _base", "_base"),
        ("from concurrent.futures._base import PENDING", "_base"),
        ("import concurrent.futures.thread as pools\npools._global_shutdown_lock", "_global_shutdown_lock"),
        ("def count(pool): return len(pool._idle_semaphore)", "_idle_semaphore"),
        ("def forget(pool): pool._work_queue = None", "_work_queue"),
        ("import threading\nclass Worker(threading.Thread):\n    def stop(self): self._delete()", "_delete"),
        ("def ready(loop): return getattr(loop, '_ready')", "_ready"),
        ("from operator import attrgetter\nready = attrgetter('_scheduled')", "_scheduled"),
        ("class Own:\n    def close(self, pool): self._open = pool._initializer", "_initializer"),
    ],
)
def test_a_private_name_that_is_added_is_found(source: str, name: str) -> None:
    """Each way to use a private name is noticed, so that the list fails when a use is added."""
    assert uses_in(source) == {name}


@pytest.mark.parametrize(
    "source",
    [
        "class Own:\n    def __init__(self): self._open = True\n    def close(self): self._open = False",
        "class Own:\n    __slots__ = ('_open',)\n    def take(self, other): self._open = other._open",
        "from procession._model.handle import Handle\ndef index(handle: Handle): return handle._index",
        "import os, sys\nos._exit(sys._getframe().f_lineno)",
        "def _own(): ...\n_own()",
    ],
)
def test_a_name_of_the_package_is_none_of_them(source: str) -> None:
    """What a class of the package defines may be used by it, and by those that know the class."""
    assert uses_in(source) == set()
