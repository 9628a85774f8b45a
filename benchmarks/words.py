"""Map-reduce over files: the words of each are counted, and then those of all. Importable from every worker."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

WORDS = 40_000

Counted = tuple[Counter[str], float]
"""How often each word stands there, and how long it took to count them, in seconds."""


def written(folder: Path, count: int) -> list[Path]:
    """Write so many files of random words, some of them much longer than others."""
    chance = random.Random(0)
    words = [f"word{number}" for number in range(2000)]
    files = [folder / f"{number}.txt" for number in range(count)]
    for file in files:
        file.write_text(" ".join(chance.choices(words, k=chance.randint(WORDS // 4, 4 * WORDS))), encoding="utf-8")
    return files


def count_words(file: Path) -> Counted:
    """Count the words of a file."""
    start = time.perf_counter()
    counter = Counter(file.read_text(encoding="utf-8").split())
    return counter, time.perf_counter() - start


def summed(parts: Sequence[Counted]) -> Counted:
    """Add the words of all files up."""
    start = time.perf_counter()
    total: Counter[str] = Counter()
    for counter, _ in parts:
        total.update(counter)
    return total, time.perf_counter() - start
