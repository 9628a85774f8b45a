"""What runs on the workers of a cluster: the calls of a batch, and what is then told of them and handed out.

See `backends.cluster` for the picture.
"""

import io
import pickle
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from procession._remote.wire.batch import Batch, BatchOptions, Report
from procession._remote.wire.result import Result, encode_result, result_of
from procession._remote.wire.serialize import Call
from procession._remote.worker.run_calls import run_batch
from procession._remote.worker.run_stub import RunStub

if TYPE_CHECKING:
    from procession._remote.wire.packed import Packed


class Failed(Report):
    """A report of calls of which not all have returned. A cluster tells the type of a value before it hands it out."""

    __slots__ = ()


class Kept(NamedTuple):
    """What a batch came to: all of it, for as long as the cluster keeps it, and what the client is told."""

    whole: Report
    report: Report
    """The report that goes to the client, with small values in it."""
    away: list[int]
    """The places of the large values, which stay."""


def run_away(
    data: bytes, options: BatchOptions, values: Sequence[Any], small_bytes: float, run_stub: RunStub | None = None
) -> Kept:
    """Make the calls of a batch, which take some of the values."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, place: Any) -> Any:
            return values[place]

    def loads(data: bytes) -> Sequence[Call]:
        return [call for part in pickle.loads(data) for call in Unpickler(io.BytesIO(part)).load()]  # noqa: S301

    whole = run_batch(Batch((), options, data=data, loads=loads), run_stub)
    ended: list[bytes | Packed] = []
    away: list[int] = []
    well = whole.error is None
    for place, one in enumerate(whole.ended):
        result = result_of(one, whole.worker)
        well = well and result.returned
        if result.returned and not _is_small(result.value, small_bytes):
            away.append(place)
            ended.append(encode_result(result._replace(value=None), None))
        else:
            ended.append(encode_result(one, whole.encode) if isinstance(one, Result) else one)
    kind = Report if well else Failed
    report = kind(whole.worker, ended, whole.began, whole.finished, whole.error, bool(whole.hung))
    return Kept(whole, report, away)


def told(kept: Kept) -> tuple[Report, list[int]]:
    """Return the report of a batch for the client."""
    return kept.report, kept.away


def value_of(kept: Kept, place: int) -> Any:
    """Return a value that stayed."""
    result = result_of(kept.whole.ended[place], kept.whole.worker)
    if result.error is not None:  # it could not be read where the cluster has moved it
        raise result.error
    return result.value


def _is_small(value: Any, limit: float) -> bool:
    if limit == inf:
        return True
    try:
        pickle.Pickler(_Small(limit), pickle.HIGHEST_PROTOCOL).dump(value)
    except _LargeError:
        return False
    except Exception:  # by value, or not at all, and then it says so: it has to come here for that
        return True
    return True


class _LargeError(Exception):
    """A value is too large to come with a report."""


class _Small:
    """A file that takes so many bytes and no more, so that a large value is not copied to be measured."""

    def __init__(self, limit: float) -> None:
        self._left = limit

    def write(self, data: Any) -> int:
        """Take some bytes."""
        size = memoryview(data).nbytes
        self._left -= size
        if self._left < 0:
            raise _LargeError
        return size
