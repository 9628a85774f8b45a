"""Observers that keep what they are told, and tasks to be told of."""

import pytest
import tenacity

STRATEGIES = ["sequential", "parallel", "hybrid"]
RULES = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())


def same(value):
    return value


def throw(error):
    raise error


class Kept:
    """An observer that keeps what it is told, as a user's own would be written."""

    def __init__(self):
        self.events = []

    def on_event(self, event):
        self.events.append(event)

    @property
    def said(self):
        return [(event.name, event.index, event.attempt) for event in self.events]


class Immediate(Kept):
    immediate = True


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture
def told(caplog):
    """Return a function that gives what was logged under a name."""
    return lambda name: [record for record in caplog.records if record.getMessage() == name]
