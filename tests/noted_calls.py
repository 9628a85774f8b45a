"""Functions that leave a file for each call, wherever it is made: the modules that workers import are light."""

import os

FOLDER = "NOTED_CALLS"


def noted(name):
    """Leave a file that says that a call was made, wherever that was."""
    for place in range(100):
        try:
            os.close(os.open(f"{os.environ[FOLDER]}/{name}.{place}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return


def tenfold(number):
    noted(number)
    return number * 10


async def tenfold_async(number):
    noted(number)
    return number * 10


def total(numbers):
    noted("total")
    return sum(numbers)


def after(number):
    noted("after")
    return number + 1


def beside():
    noted("beside")
