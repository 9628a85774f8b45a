"""Audit the source files of the running Python's standard library: find them, measure all of them, sum up.

    python examples/source_audit.py

Three tasks in a hybrid process. The first half (one task) runs in order: it finds the files. The rest runs at once:
a map that measures every file, and a summary that waits for the map because it takes its handle as an argument.

To parse is to compute, at which threads take turns: the calls are made in worker processes, one for each processor.
"""

import ast
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from procession import Process


class Source(NamedTuple):
    """A file, and the top-level package or module that it belongs to."""

    package: str
    path: Path


class Measures(NamedTuple):
    """What is counted in one file."""

    package: str
    path: Path
    lines: int
    functions: int
    undocumented: int
    longest: int
    longest_name: str
    readable: bool = True


def find_files(root: Path) -> list[Source]:
    """Return every Python file of the standard library, without what was installed beside it."""
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = set(folders) - {"site-packages", "dist-packages", "__pycache__"}
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return [Source(path.relative_to(root).parts[0].removesuffix(".py"), path) for path in sorted(found)]


def measure(file: Source) -> Measures:
    """Parse one file and count what is in it. The library's own tests have files that are broken on purpose."""
    package, path = file
    source = path.read_bytes()
    lines = source.count(b"\n")
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source, filename=str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Measures(package, path, lines, 0, 0, 0, "", readable=False)
    functions = list(functions_of(tree))
    length, name = max(((f.end_lineno or f.lineno) - f.lineno + 1, f.name) for f in functions) if functions else (0, "")
    undocumented = sum(ast.get_docstring(function, clean=False) is None for function in functions)
    return Measures(package, path, lines, len(functions), undocumented, length, name)


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method, however deep."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def summarise(measured: list[Measures]) -> str:
    """Return the result as a table: the largest packages, and the longest function of each."""
    packages: dict[str, list[Measures]] = {}
    for one in measured:
        packages.setdefault(one.package, []).append(one)
    largest = sorted(packages.items(), key=lambda item: -sum(one.lines for one in item[1]))[:12]
    rows = [f"{'package':<16}{'files':>7}{'lines':>10}{'functions':>11}{'no docstring':>14}  longest function"]
    for package, files in [*largest, ("all", measured)]:
        longest = max(files, key=lambda one: one.longest)
        functions = sum(one.functions for one in files)
        without = f"{sum(one.undocumented for one in files) / functions:.0%}" if functions else "-"
        rows.append(
            f"{package:<16}{len(files):>7,}{sum(one.lines for one in files):>10,}{functions:>11,}{without:>14}"
            f"  {longest.longest_name} ({longest.longest:,} lines, {longest.path.name})"
        )
    broken = sum(not one.readable for one in measured)
    rows.append(f"{len(measured):,} files, {broken} of them not valid Python on purpose")
    return "\n".join(rows)


def build() -> Process:
    """Return the process: find, then measure and sum up."""
    process = Process("source_audit", strategy="hybrid", max_workers=os.cpu_count(), executor="processes")
    files = process.task(find_files, Path(sysconfig.get_path("stdlib")))
    measured = process.map(measure, files)
    process.task(summarise, measured)
    return process


def main() -> None:
    """Run the audit, and say how much faster that was than one call after another."""
    process = build()
    *_, table = process.execute(progress=True)
    print(table)
    assert process.last_run is not None
    print(f"\n{process.last_run.timeline()}")


if __name__ == "__main__":
    main()
