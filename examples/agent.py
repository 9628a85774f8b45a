"""An agent that asks a model what to do next, uses tools, and keeps to a budget; killed, it goes on where it was.

    python examples/agent.py                 # waits for a person before it orders: the run is suspended
    python examples/agent.py --die-after 3   # is killed after three answers of the model; then run it again
    procession answer fruit order true --journal agent.db   # lets it; then run it again: nothing is paid for twice

What the agent calls next depends on the answers, so its calls are no tasks that could be listed beforehand: they are
recorded calls of one task. The model is a stand-in on this machine, which answers by a fixed rule and writes each
question that it is asked into its bill. A real one would be asked in `ask_model`, with `current_task().key` as the
idempotency key of the request.
"""

import argparse
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, final

from procession import Limit, Process, RunSuspendedError, current_task, task

STOCK = {"apples": 3, "pears": 0, "plums": 7}
PRICES = {"apples": 0.5, "pears": 0.8, "plums": 0.25}
BUDGET = 20
"""How many cents the agent may spend on the model."""
CENTS = 2
"""What a question costs."""


class Step(TypedDict):
    """What the agent has done so far: which tool it has used, on what, and what came of it."""

    tool: str
    arguments: list[Any]
    result: Any


@final
class Action(TypedDict):
    """What the model answers as long as it needs to know more: the tool to use next."""

    tool: str
    arguments: list[Any]


@final
class Answer(TypedDict):
    """What the model answers at last."""

    answer: str


# The service, with a limit as it would have


@task(retries=3, timeout=30.0, limit=Limit("model", at_once=2, rate=50), name="ask_model")
def ask_model(bill: str, goal: list[str], steps: list[Step]) -> Action | Answer:
    """Ask the model what to do next. It is paid for each question, whatever becomes of the answer."""
    with Path(bill).open("a", encoding="utf-8") as file:
        file.write(f"{current_task().key} {CENTS}\n")
    return _think(goal, steps)


def _think(goal: list[str], steps: list[Step]) -> Action | Answer:
    """Stand in for a model: look up each fruit, price those that are there, and sum up."""
    seen = {step["arguments"][0]: step for step in steps if step["tool"] in ("stock", "price")}
    for fruit in goal:
        if fruit not in seen:
            return {"tool": "stock", "arguments": [fruit]}
        if seen[fruit]["tool"] == "stock" and seen[fruit]["result"]:
            return {"tool": "price", "arguments": [fruit, seen[fruit]["result"]]}
    total = sum(step["result"] for step in steps if step["tool"] == "price")
    if steps[-1]["tool"] != "order":
        return {"tool": "order", "arguments": [total]}
    return {"answer": f"{', '.join(goal)}: {steps[-1]['result']}"}


# The tools


def stock(fruit: str) -> int:
    """Return how many there are."""
    return STOCK[fruit]


def price(fruit: str, count: int) -> float:
    """Return what so many cost."""
    return PRICES[fruit] * count


def order(total: float) -> str:
    """Spend the money."""
    return f"ordered for {total:.2f}"


TOOLS: dict[str, Callable[..., Any]] = {"stock": stock, "price": price, "order": order}
DANGEROUS = ("order",)
"""The tools that a person is asked about first."""


# The agent


def agent(bill: str, goal: list[str]) -> str:
    """Ask and act until there is an answer, or no budget left."""
    me = current_task()
    die_after = int(os.environ.get("DIE_AFTER", "0"))  # no argument: another one would be another question
    steps: list[Step] = []
    for asked in range(BUDGET // CENTS):
        reply = me.call(ask_model, bill, goal, steps)
        if asked + 1 == die_after:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # on Windows, SIGTERM kills
        if "answer" in reply:
            return reply["answer"]
        # One name for each tool, as each is used once; else it would have a number.
        if reply["tool"] in DANGEROUS and not me.wait_for(reply["tool"]):
            result: Any = "not ordered, as a person was against it"
        else:
            result = me.call(TOOLS[reply["tool"]], *reply["arguments"])
        steps.append({"tool": reply["tool"], "arguments": reply["arguments"], "result": result})
    return f"no answer for {BUDGET} cents"


def main() -> None:
    """Answer one question, or go on with it; say what was paid for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--die-after", type=int, default=0, help="be killed after so many answers of the model")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the journal and the bill are kept")
    options = parser.parse_args()
    bill = options.folder / "agent-bill.txt"
    os.environ["DIE_AFTER"] = str(options.die_after)
    process = Process("agent")
    process.add_task(agent, str(bill), ["apples", "pears", "plums"])
    try:
        [answer] = process.execute(run_id="fruit", journal=options.folder / "agent.db")
    except RunSuspendedError as suspended:
        answer = str(suspended)
    paid = [line.split() for line in bill.read_text(encoding="utf-8").splitlines()]
    twice = len(paid) - len({key for key, _ in paid})
    print(answer)
    print(f"{len(paid)} questions, {twice} of them paid twice, {sum(int(cents) for _, cents in paid)} cents in all")


if __name__ == "__main__":
    main()
