# pyright: strict
"""What type checkers must refuse: every line marked `refused`, and no other. Checked, never run.

mypy lets a `functools.partial` take anything; so lines about one are marked `refused by pyright`.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from procession import Hybrid, Process, current_task, stream, task


def words(text: str) -> list[str]:
    return text.split()


def length(word: str) -> int:
    return len(word)


def half(number: int) -> float:
    return number / 2


def all_halves(numbers: list[int]) -> list[float]:
    return [number / 2 for number in numbers]


def total(numbers: Iterable[int]) -> int:
    return sum(numbers)


def table(rows: dict[str, int], *, title: str = "") -> str:
    return f"{title}{rows}"


def repeated(word: str, times: int, /) -> str:
    return word * times


def all_five(a: int, b: str, c: float, d: bytes, e: bool) -> None:
    print(a, b, c, d, e)


def all_six(a: int, b: str, c: float, d: bytes, e: bool, f: Path) -> None:
    print(a, b, c, d, e, f)


async def page(url: str, size: int = 0) -> bytes:
    return url.encode()[:size]


async def pair(one: str, other: int) -> float:
    return len(one) / other


class Store:
    def save(self, count: int) -> Path:
        return Path(str(count))

    def __call__(self, path: Path) -> bytes:
        return path.read_bytes()


@task(retries=3, timeout=30.0, name="fetch")
def fetch(url: str, *, size: int = 0) -> bytes:
    return url.encode()[:size]


# Strategies, policies and bounds that do not exist

Process()  # refused
Process(1)  # refused
Process("a", "everything")  # refused
Process("a", strategy="Parallel")  # refused
Process("a", Hybrid)  # refused
Process("a", Hybrid(first="half"))  # refused
Process("a", Hybrid(1.5))  # refused
Process("a", max_workers="4")  # refused
Process("a", max_workers=2.5)  # refused
Process("a", on_error="ignore")  # refused
Process("a", on_error=None)  # refused
Process("a", "parallel", 4, "stop")  # refused
Process("a", colour="red")  # refused

process = Process("a", strategy="parallel")
process.strategy = "everything"  # refused
process.on_error = "ignore"  # refused
process.max_workers = None  # refused
process.last_run = None  # refused
process.colour = "red"  # refused
print(process.status == "done")  # refused

# Calls that cannot be made

process.add_task()  # refused
process.add_task(1)  # refused
process.add_task("words")  # refused
process.add_task(words("a b"))  # refused
process.add_task(callable=words)  # refused
process.add_task(words)  # refused
process.add_task(words, 1)  # refused
process.add_task(words, "a", "b")  # refused
process.add_task(words, test="a")  # refused
process.add_task(words, "a", text="b")  # refused
process.add_task(words, "a", callable=1)  # refused
process.add_task(words, "a", name="b")  # refused
process.add_task(words, "a", self=1)  # refused
process.add_task(words, "a", timeout=1)  # refused
process.add_step(words, 1)  # refused
process.add_task(table, {"a": "b"})  # refused
process.add_task(table, {"a": 1}, "b")  # refused
process.add_task(table, {"a": 1}, title=1)  # refused
process.add_task(repeated, word="a", times=1)  # refused
process.add_task(lambda: 1, 2)  # refused
process.add_task(partial(words, "a"), "b")  # refused by pyright
process.add_task(partial(table, title="a"), {"a": "b"})  # refused by pyright
process.add_task(Store().save, "1")  # refused
process.add_task(Store.save, 1)  # refused
process.add_task(Store(), 1)  # refused
process.add_task(Store, 1)  # refused
process.add_task(fetch, 1)  # refused
process.add_task(fetch, "a", size="b")  # refused
process.add_task(Process("inner"), 1)  # refused
process.add_task(Process("inner").execute, 1)  # refused
process.task(words, process.add_task(words, "a b"))  # refused

# Handles wired to what does not take their value

some_words = process.task(words, "a b")
some_lengths = process.map(length, some_words)
process.task(length, some_words)  # refused
process.task(words, process.task(length, "a"))  # refused
process.task(words, text=process.task(length, "a"))  # refused
process.task(half, process.task(words, "a b"))  # refused
process.task(total, some_words)  # refused
process.task(total, [process.task(words, "a b")])  # refused
process.task(total, (process.task(length, "a"), some_words))  # refused
process.task(table, {"a": some_words})  # refused
process.task(table, {"a": 1}, title=some_words)  # refused
process.task(Store().save, some_words)  # refused
process.task(partial(repeated, "a"), some_words)  # refused by pyright
process.task(fetch, process.task(length, "a"))  # refused
process.task(fetch, "a", size=some_words)  # refused
process.task(words)  # refused
process.task(1)  # refused

# Maps over what the function does not take

process.map(half, some_words)  # refused
process.map(half, ["a", "b"])  # refused
process.map(half, process.task(length, "a"))  # refused
process.map(half, 3)  # refused
process.map(length, some_lengths)  # refused
process.map(total, some_lengths)  # refused
process.map(Store().save, some_words)  # refused
process.map(partial(repeated, "a"), some_words)  # refused by pyright
process.map(fetch, some_lengths)  # refused
process.map(length, some_words, constants=["size"])  # refused
process.map(length, some_words, batch=2)  # refused
process.map(total, some_lengths, batch=2)  # refused
process.map(all_halves, some_words, batch=2)  # refused
process.map(all_halves, some_lengths)  # refused
process.map(all_halves, some_lengths, batch="2")  # refused
process.map(length, process.map(all_halves, some_lengths, batch=2))  # refused
task(executor="threads")(length)  # refused
process.map(table, [{"a": 1}], title="a")  # refused
process.map(length)  # refused
process.map(callable=length)  # refused
process.map(1, some_words)  # refused
process.map(length, some_words, some_words)  # refused
process.map(repeated, some_words)  # refused
process.map(repeated, some_lengths, some_words)  # refused
process.map(repeated, some_words, some_words)  # refused
process.map(all_five, [1], ["a"], [1.0], [b""])  # refused
process.map(all_five, [1], ["a"], [1.0], ["b"], [True])  # refused
process.map(all_five, [1], ["a"], [1.0], [b""], ["b"])  # refused
process.map(all_six, [1], ["a"], [1.0], [b""], [True], 3)  # refused
total(process.map(words, some_words))  # refused

# Options that cannot be meant

task(length)(1)  # refused
task("fetch")  # refused
task(retries="x")  # refused
task(retries=1.5)  # refused
task(retries=None)  # refused
task(timeout="1")  # refused
task(name=1)  # refused
task(retry_on="OSError")  # refused
task(retry_on=KeyboardInterrupt)  # refused
task(retry_on=(OSError, KeyboardInterrupt))  # refused
task(retry_on=OSError())  # refused
task(colour="red")  # refused
task(retries=1)(1)  # refused
task(retries=1)(length)(1)  # refused
fetch(1)  # refused
fetch("a", 1)  # refused


# Runs and outcomes

run = process.start()
total(run[some_words])  # refused
words(run[some_lengths])  # refused
run.status = "completed"  # refused
print(run.status == "done")  # refused
run.result("1")  # refused
run.wait(timeout="1")  # refused
run.summary("3")  # refused
run.progress.ended = 1  # refused
run.colour = "red"  # refused
run.outcomes["a"]  # refused
run.outcomes[0].state = "completed"  # refused
run.outcomes[0].value = 1  # refused
print(run.outcomes[0].state == "done")  # refused
process.last_run.cancel()  # refused
process.execute("a")  # refused
current_task().sleep("1")  # refused
current_task().cancelled = True  # refused
current_task().call(length, 1)  # refused
current_task().call(length)  # refused
current_task().call("length")  # refused
current_task().call(table, {"a": 1}, titles="b")  # refused
current_task().map(length, [1])  # refused
current_task().map(length)  # refused


# Streams


def written(rows: Iterable[int]) -> int:
    return sum(rows)


texts = process.map(str, [1])
process.task(written, stream(texts))  # refused
stream(process.task(page, "a"))  # refused
stream(1)  # refused
task(keep="no")  # refused
run.stream(process.task(words, "a"), ordered=1)  # refused
process.start(streams=[1])  # refused


# Coroutines

process.task(page)  # refused
process.task(page, 1)  # refused
process.add_task(page, "a", colour="red")  # refused
words(process.task(page, "a"))  # refused
process.task(words, process.task(page, "a"))  # refused
process.map(page, [1])  # refused
process.map(pair, ["a"], ["b"])  # refused


async def within() -> None:
    await current_task().call(page, 1)  # refused
    await current_task().call(length, "a")  # refused
    await current_task().map(page, [1])  # refused
    await process.execute_async("a")  # refused
    words(await run)  # refused
    for _ in await process:  # refused
        pass
