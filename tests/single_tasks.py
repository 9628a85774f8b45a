"""A process of one task that has options, and tasks that fail for a while."""

import tenacity

from procession import Process, current_task

STRATEGIES = ["sequential", "parallel", "hybrid"]
AT_ONCE = {"wait": tenacity.wait_none(), "sleep": lambda _: None}


class Flaky:
    """Raises what it is given, one after the other, then returns the number of the attempt."""

    def __init__(self, *errors):
        self.errors = errors
        self.attempts = []

    def __call__(self):
        number = current_task().attempt
        self.attempts.append(number)
        if number <= len(self.errors):
            raise self.errors[number - 1]
        return number


def run_of(function, strategy="sequential", **options):
    process = Process("options", strategy, 2, on_error="return", **options)
    process.add_task(function)
    return process.start()


def no_backoff(number, **more):
    return tenacity.Retrying(stop=tenacity.stop_after_attempt(number), **AT_ONCE, **more)


def outcome_of(function, strategy="sequential"):
    run = run_of(function, strategy)
    run.wait(30)
    return run.outcomes[0]
