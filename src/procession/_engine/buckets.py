"""The buckets of this program: one for each limit, whichever runs make calls under it, and one lock for all of them."""

import os
import threading
from collections.abc import Collection
from typing import Final
from weakref import WeakValueDictionary

from procession._engine.bucket import Bucket, admit
from procession._engine.shared_bucket import SharedBucket
from procession._model.limit import Limit, LimitKey

lock = threading.Lock()
"""The lock of all buckets, as a call may need several at once. Always `buckets.lock`: a forked process has another."""
_BUCKETS: Final[WeakValueDictionary[LimitKey, Bucket]] = WeakValueDictionary()
"""By what it allows, what is under way under a limit: limits that allow the same under one name are one."""


def bucket_of(limit: Limit) -> Bucket:
    """Return the bucket that counts the calls under a limit: one for all limits with the same name and numbers."""
    with lock:
        return _bucket_of(limit)


def _bucket_of(limit: Limit) -> Bucket:
    bucket = _BUCKETS.get(limit.key)
    if bucket is None:
        kind = Bucket if limit.shared is None else SharedBucket
        bucket = _BUCKETS[limit.key] = kind(at_once=limit.at_once, rate=limit.rate, per=limit.per)
    limit.bucket = bucket
    return bucket


def begin_anew(limit: Limit, bucket: Bucket, now: float) -> None:
    """Put another bucket in the place of one in which, after an error, calls may count that have ended.

    The caller has the lock.
    """
    bucket.in_use = 0
    if _BUCKETS.get(limit.key) is bucket:
        del _BUCKETS[limit.key]
        _bucket_of(limit).exhaust(now)


def look_into(buckets: Collection[Bucket], now: float, *, prods: bool = True) -> None:
    """Admit what may begin under some limits, of any run; where `prods` says so, have the databases asked for more."""
    with lock:
        admitted, sooner = admit(buckets, now)
        alarms = [(line, line.alarm) for line in sooner]
        unheard = [bucket for bucket in buckets if prods and isinstance(bucket, SharedBucket)]
    for bucket in unheard:
        bucket.prod()
    for line, alarm in alarms:
        line.look_at(alarm)
    for ticket in admitted:
        ticket.wake()


def _begin_in_child() -> None:
    """Begin anew in a process that was forked: nothing is under way there."""
    global lock  # noqa: PLW0603
    lock = threading.Lock()
    for bucket in list(_BUCKETS.values()):
        bucket.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
