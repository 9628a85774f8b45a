"""Those who are told of each event of a run."""

from typing import Protocol, runtime_checkable

from procession._model.event import Event


@runtime_checkable
class Observer(Protocol):
    """What `observers=[...]` takes: anything with a method `on_event`.

    It is called with one event at a time, in a thread that the observer has for itself during a run, so that a slow
    one holds up no task and no other observer. The events of a run come in order: its start first and its end last,
    a task's start before its end, and after the end of whatever it waits for; for the rest, by time. One that cannot
    keep up misses the start and end of tasks, and the last event says how many it has `dropped`. What it raises is
    logged; an observer that raised three times is told nothing more in that run.

    A class with the attribute `immediate = True` is told where and when it happens instead: in the worker's thread,
    in the context (`contextvars`) in which the task then runs. That holds up the tasks; it is for observers that set
    context variables, as tracers do. What they set at the start of a run, all of its tasks see.

    >>> from procession import Event, Process
    >>> class Printer:
    ...     def on_event(self, event: Event) -> None:
    ...         print(event.name if event.index is None else f"{event.name} {event.task_name}")
    >>> process = Process("short", observers=[Printer()])
    >>> process.add_task(len, "abc")
    >>> process.execute()
    run_started
    task_started len
    task_completed len
    run_completed
    [3]
    """

    def on_event(self, event: Event, /) -> None:
        """Take note of an event."""
        ...
