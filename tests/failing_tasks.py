"""Tasks that fail, and what came of them."""

import pytest

STRATEGIES = ["sequential", "parallel", "hybrid"]
AT_ONCE = ["parallel", "hybrid"]
POLICIES = ["stop", "continue", "return"]


def same(value):
    return value


def throw(error):
    raise error


def states(process):
    return [outcome.state for outcome in process.last_run.outcomes]


def caught_from(process):
    with pytest.raises(BaseException) as caught:
        process.execute()
    return caught.value
