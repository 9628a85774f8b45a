"""The labels that name templates give in one run: made when they are shown, or recorded."""

from collections.abc import Iterable
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from procession._engine.ledger import Ledger
from procession._model.label import is_template, label_of, signature_of
from procession._model.record import WHOLE
from procession._model.task import MapFunction, options_of
from procession._plan.plan import Plan
from procession._plan.wiring import bound

if TYPE_CHECKING:
    from inspect import Signature

_AT_HAND: Final = frozenset({list, tuple, range})


class Labels:
    """Makes the labels of tasks whose names are templates, and of the elements of maps of such functions."""

    def __init__(self, plan: Plan, ledger: Ledger, templates: Iterable[int]) -> None:
        """`templates` are the tasks whose names are templates."""
        self._plan = plan
        self._ledger = ledger
        self._templates = frozenset(templates)
        self._signatures: dict[int, Signature] = {}  # by the id of the function, which the plan keeps
        self._noted: dict[tuple[int, int], str] = {}

    def of_task(self, index: int) -> str | None:
        """Return the label of a task; `None` where it has none, or an argument is not there yet, or no longer."""
        function = self._plan.calls[index][0]
        if index not in self._templates or isinstance(function, MapFunction):
            return None
        arguments = self._arguments(index)
        return None if arguments is None else self._label(function, *arguments)

    def of_element(self, index: int, element: int) -> str | None:
        """Return the label of an element of a map; `None` where it has none, or where the element is not at hand.

        At hand are elements of lists and tuples, and of a recorded run all that are being called.
        """
        noted = self._noted.get((index, element))
        function = self._plan.calls[index][0]
        if noted is not None or index not in self._templates or not isinstance(function, MapFunction):
            return noted
        arguments = self._arguments(index)
        if arguments is None:
            return None
        iterables, constants = arguments
        if not all(type(one) in _AT_HAND and element < len(one) for one in iterables):
            return None
        return self._label(function.function, tuple(one[element] for one in iterables), constants)

    def note(self, index: int, element: int, args: tuple[Any, ...]) -> None:
        """Keep the label of an element of a map until its call is recorded."""
        function = self._plan.calls[index][0]
        if index in self._templates and isinstance(function, MapFunction):
            _, constants = (self._arguments(index) if self._plan.calls[index][2] else None) or ((), {})
            label = self._label(function.function, args, constants)
            if label is not None:
                self._noted[index, element] = label

    def take(self, index: int, element: int) -> str | None:
        """Return the label of a task, or of an element, which is then forgotten."""
        return self.of_task(index) if element == WHOLE else self._noted.pop((index, element), None)

    def _arguments(self, index: int) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Return the arguments of a task, with values in place of handles; `None` where one is not there."""
        plan, values = self._plan, self._ledger.values
        _, args, kwargs = plan.calls[index]
        if index in plan.needs:
            for source in plan.needs[index]:
                if self._ledger.state(source) != "completed" or (isinstance(values, dict) and source not in values):
                    return None
            streams = {source: repeat(()) for source in plan.streams.get(index, ())}
            args, kwargs = bound(args, kwargs, values, streams)
        return args, kwargs

    def _label(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        name = options_of(function).name
        if name is None:
            return None
        signature = self._signatures.get(id(function))
        if signature is None:
            try:
                signature = self._signatures[id(function)] = signature_of(function)
            except (TypeError, ValueError):
                return None
        return label_of(name, signature, args, kwargs)


def labels_of(plan: Plan, ledger: Ledger) -> Labels | None:
    """Return the labels of a run; `None` if no name is a template."""
    templates = [index for index, options in plan.options.items() if is_template(options.name)]
    return Labels(plan, ledger, templates) if templates else None
