"""The protocol of observers, which are told of each event of a run."""

from typing import Protocol, runtime_checkable

from procession._model.event import Event


@runtime_checkable
class Observer(Protocol):
    """The protocol of what `observers=[...]` takes: any object with a method `on_event`.

    The method is called with one event at a time, in a thread that each observer has for itself during a run, so that a
    slow observer holds up neither tasks nor other observers. The events of a run come in order: its start first and its
    end last, the start of a task before its end and after the end of every task that it waits for, and all others by
    time. An observer that cannot keep up misses starts and ends of tasks, and the `dropped` of its last event counts
    them. Exceptions of an observer are logged; after three of them it gets no more events of that run.

    A class with the attribute `immediate = True` is told of each event where and when it happens: in the worker's
    thread, in the context (`contextvars`) in which the task then runs. This holds up the tasks and is meant for
    observers that set context variables, as tracers do. All tasks see the variables that are set at the start of a run.

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
        """Handle an event.

        Args:
            event: The event, which must not be changed.

        """
        ...
