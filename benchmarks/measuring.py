"""How pieces of work are measured side by side, and how that is shown."""

import argparse
import os
import platform
import re
import sys
from collections.abc import Callable
from math import comb, inf
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

Timed = Callable[[], float]
"""Does the work once and returns the seconds that count."""


class Work(NamedTuple):
    """One piece of work of so many `parts`, done by several; figures are in `unit` for each part."""

    title: str
    parts: int
    unit: str
    contestants: dict[str, Timed]
    goals: dict[str, Callable[[dict[str, float]], tuple[bool, str]]]
    slow: frozenset[str] = frozenset()
    """Contestants that would take minutes: they run in the first three rounds only."""


def at_most(limit: float, name: str = "procession") -> Callable[[dict[str, float]], tuple[bool, str]]:
    """Return the goal that a figure is no more than the limit."""
    return lambda figures: (figures[name] <= limit, f"{shown(figures[name])}")


def ratio_at_most(limit: float, other: str, name: str = "procession") -> Callable[[dict[str, float]], tuple[bool, str]]:
    """Return the goal that a figure is no more than so many times that of another."""
    return lambda figures: (figures[f"{name}/{other}"] <= limit, f"{figures[f'{name}/{other}']:.3f} times")


def not_behind(other: str) -> Callable[[dict[str, float]], tuple[bool, str]]:
    """Return the goal that our figure may be no more than another's: their ratio's interval does not lie above 1."""

    def check(figures: dict[str, float]) -> tuple[bool, str]:
        ratio, least, most = (figures[f"procession/{other}{what}"] for what in ("", ", least", ", most"))
        return least <= 1, f"{ratio:.3f} times, {least:.3f} to {most:.3f}"

    return check


def interval(values: list[float]) -> tuple[float, float]:
    """Return where the median of what the values were drawn from lies, with 95 % confidence, by the sign test."""
    count, outside, tail = len(values), 0, 0.5 ** len(values)
    while tail + comb(count, outside + 1) * 0.5**count <= 0.025 and outside + 1 < count - outside - 1:
        outside += 1
        tail += comb(count, outside) * 0.5**count
    ordered = sorted(values)
    return ordered[outside], ordered[-1 - outside]


def ratio_at_least(limit: float, other: str) -> Callable[[dict[str, float]], tuple[bool, str]]:
    """Return the goal that another's figure is at least so many times ours."""
    return lambda figures: (
        1 / figures[f"procession/{other}"] >= limit,
        f"{1 / figures[f'procession/{other}']:.0f} times",
    )


TIMES_SCHEDULE = "times the simulated schedule"

SCALES = {
    TIMES_SCHEDULE: 1.0,
    "times the ideal time": 1.0,
    "calls": 1.0,
    "µs a task": 1e6,
    "µs a step": 1e6,
    "µs a line": 1e6,
    "µs an element and stage": 1e6,
    "ms": 1e3,
    "arrays": 1.0,
    "bytes a task": 1.0,
    "kB": 1e-3,
    "MB": 1e-6,
    "% idle": 100.0,
}


class Measured(NamedTuple):
    """What came of one work: medians and ratios by name, and the spread of each contestant."""

    work: Work
    figures: dict[str, float]
    spread: dict[str, tuple[float, float]]
    rounds: dict[str, int]


def measure(work: Work, rounds: int) -> Measured:
    """Run every contestant in every round."""
    taken: dict[str, dict[int, float]] = {name: {} for name in work.contestants}
    names = list(work.contestants)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if number < 3 or name not in work.slow:
                taken[name][number] = work.contestants[name]() / work.parts * SCALES[work.unit]
                print(f"  {name}: {shown(taken[name][number])} {work.unit}", file=sys.stderr)
    figures = {name: median(times.values()) for name, times in taken.items()}
    for one in names:
        for other in names:
            both = taken[one].keys() & taken[other].keys()
            ratios = [_ratio(taken[one][number], taken[other][number]) for number in both]
            figures[f"{one}/{other}"] = median(ratios)
            figures[f"{one}/{other}, least"], figures[f"{one}/{other}, most"] = interval(ratios)
    spread = {name: (min(times.values()), max(times.values())) for name, times in taken.items()}
    return Measured(work, figures, spread, {name: len(times) for name, times in taken.items()})


def _ratio(one: float, other: float) -> float:
    """Return how many times another figure one is; where both are nothing, they are the same."""
    return one / other if other else 1.0 if one == other else inf


def most_bytes() -> int:
    """Return how many bytes this program has had in RAM, at most."""
    # Of this program alone, so only on Linux: `resource.getrusage` counts what its parent had when it began, too.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def shown(figure: float) -> str:
    """Return a figure with three digits."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def _times(ratio: float) -> str:
    return "-" if ratio == inf else f"{ratio:.3g}"


def table(results: list[Measured]) -> str:
    """Return the results as Markdown."""
    lines: list[str] = []
    for work, figures, spread, rounds in results:
        first = next(iter(work.contestants))
        lines += [
            "",
            f"### {work.title}",
            "",
            f"| | {work.unit} | least to most | rounds | times {first} |",
            "|---|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {name} | {shown(figures[name])} | {' to '.join(map(shown, spread[name]))} | {rounds[name]} "
            f"| {_times(figures[f'{name}/{first}'])} |"
            for name in work.contestants
        ]
        if work.goals:
            lines.append("")
        for goal, check in work.goals.items():
            reached, what = check(figures)
            lines.append(f"- {'reached' if reached else '**missed**'}: {goal} ({what})")
    return "\n".join(lines)


def compare(
    title: str,
    page: str,
    said: str | None,
    works: Callable[[int], list[Work]],
    tasks: int = 0,
    *,
    rounds: int = 7,
    publish: Callable[[list[Measured]], None] | None = None,
) -> None:
    """Measure what a script asks for on its command line, print it, and write it to a page of the docs if asked to.

    `said` is the script's docstring, whose third paragraph says how it measures; `works` is called with the number of
    tasks, by default `tasks`, where the script takes one; `publish`, if given, with what is written to the page, too.
    """
    parser = argparse.ArgumentParser(description=(said or "").splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=rounds, help=f"how often each contestant runs (default: {rounds})"
    )
    if tasks:
        parser.add_argument("--tasks", type=int, default=tasks, help=f"how many tasks (default: {tasks:,})")
    parser.add_argument("--only", default="", help="only works whose title contains this")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{page}")
    options = parser.parse_args()
    results: list[Measured] = []
    for work in works(options.tasks if tasks else 0):
        if options.only in work.title:
            print(work.title, file=sys.stderr)
            results.append(measure(work, options.rounds))
    print(f"{machine()}\n{table(results)}")
    if options.write:
        how = " ".join((said or "").split("\n\n")[2].split())
        text = f"# Benchmarks: {title}\n\nMade by `benchmarks/{Path(sys.argv[0]).name}`. {how}\n\n"
        text += f"Measured on {machine()}. "
        text += "Absolute figures move from machine to machine; compare within one table.\n"
        (ROOT / "docs" / page).write_text(text + table(results) + "\n", encoding="utf-8")
        if publish is not None:
            publish(results)


def write_figures(rows: list[str], *, real: bool) -> None:
    """Put rows into the README's table, in place of those that are of real work, which come first, or are not."""
    readme = ROOT / "README.md"
    page = readme.read_text(encoding="utf-8")
    start, end = "<!-- figures -->\n", "<!-- end figures -->"
    now = page.partition(start)[2].partition(end)[0].splitlines()
    kept = [line for line in now[2:] if line.startswith("| ") and (TIMES_SCHEDULE in line) != real]
    rows = [*rows, *kept] if real else [*kept, *rows]
    text = "\n".join(["| median | Procession | beside it |", "|---|--:|---|", *rows, "", f"{machine()}.", ""])
    readme.write_text(between(page, start, end, text), encoding="utf-8")


def between(text: str, start: str, end: str, new: str) -> str:
    """Return the text with what stands between two marks replaced."""
    changed, count = re.subn(
        f"(?s)({re.escape(start)}).*?({re.escape(end)})", lambda found: found[1] + new + found[2], text
    )
    if count != 1:
        raise AssertionError(f"{start} ... {end} stands {count} times in the text")
    return changed


def machine() -> str:
    """Return what the figures were measured on."""
    return f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}, {cores()} cores"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
