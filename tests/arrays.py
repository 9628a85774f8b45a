"""Tasks that take and make large values."""

import dataclasses
import os
import resource
import signal

import numpy

from errands import noted
from pool_jobs import limit_memory


@dataclasses.dataclass
class Box:
    """Holds whatever there is."""

    content: object


def ones(megabytes=2):
    return numpy.ones(megabytes << 17)


def numbered(number, megabytes=2):
    return numpy.full(megabytes << 17, float(number))


def zeros_in(megabytes=2):
    return Box({"zeros": [numpy.zeros(megabytes << 17)], "text": "x" * (megabytes << 20)})


def first_of_new(number):
    return first(numbered(number))


def first(array, *_):
    return float(array.flat[0])


def total(*arrays):
    return float(sum(array.sum() for array in arrays))


unnamed = lambda array: float(array.sum())  # which goes by value: there is no such name


def column_total(frame):
    frame["a"] = frame["a"] * 2  # which nobody else sees
    return float(frame["b"].sum())


def looks_of(value):
    return str(value)[:100]


def size(value):
    return len(value)


def same(value):
    return value


def are_same(one, other):
    return one is other


def count_up(array, *_):
    """Write into an array; return what it holds then."""
    array += 1
    return float(array.flat[0]), float(array.flat[-1])


def facts(array):
    return (
        array.dtype.str,
        array.shape,
        array.flags.c_contiguous,
        array.flags.f_contiguous,
        array.flags.writeable,
        array.tobytes(),
    )


def descriptors(*_):
    """Return how many files this worker has open."""
    return len(os.listdir("/proc/self/fd"))


def noted_call(sheet, key, function, *args):
    """Note a call, and the worker that makes it."""
    noted(sheet, key)
    noted(sheet, os.getpid())
    return function(*args)


def leave_memory(megabytes):
    """Leave so much more memory to this worker, beside what NumPy takes as it is imported."""
    limit_memory(megabytes)


def open_no_more_files():
    """Allow this worker no other open file."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def die_before(sheet, array):
    """Die the first time, and count up the second."""
    try:
        os.close(os.open(sheet, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return count_up(array)
    return die()


def total_of(values):
    return float(sum(array.sum() for array in values))


class Counted:
    """Counts how often it is pickled in this process."""

    times = 0

    def __init__(self, pairs):
        self.pairs = pairs

    def __reduce__(self):
        Counted.times += 1
        return Counted, (self.pairs,)


def counted(count):
    return Counted([(number, str(number)) for number in range(count)])


def pairs(*several):
    return sum(len(one.pairs) for some in several for one in (some if isinstance(some, list) else [some]))


def append(one):
    """Change a value; return how much it holds then."""
    one.pairs.append(None)
    return len(one.pairs)


def objects(*values):
    """Return how many objects there are."""
    return len({id(one) for value in values for one in (value if isinstance(value, list) else [value])})
