"""What calls take that is large, copied once to memory that every worker can be handed: for calls of one run.

    call 1 ──▶ array ──copied──▶ MemoryFile ◀── mapped by the worker of call 1
    call 2 ──▶ the same array ───────┘      ◀── mapped by the worker of call 2

A snapshot belongs to the object that hands out the buffer, as long as that lives. So later changes of the object are
not seen. What only one call has taken so far is let go of after a while; what is on its way, or with a worker, stays
where it is without this.
"""

from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from procession._remote.wire.packed import NewMemory, Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from procession._remote.wire.memory_file import MemoryFile

_SINGLE_BYTES = 64 << 20
"""Of what one call has taken, so many bytes are kept beside those of the newest message."""
_MOST_FILES = 16
_MOST_KNOWN = 1_000
"""So many objects are remembered whose memory was let go of: the second time, it is kept."""

Key = tuple[int, ...]


class _Snapshot:
    """A copy of what an object handed out."""

    __slots__ = ("message", "owner", "place", "root", "shared")

    def __init__(self, owner: "Callable[[], object]", root: "tuple[ref[Any], Key] | None", message: int) -> None:
        self.owner = owner
        """Returns the object, while it lives."""
        self.root = root
        """The object that owns the memory and the key by which it is found, if that is another object."""
        self.place: Place | None = None
        self.message = message
        """The last message that it was part of."""
        self.shared = False
        """Whether it was part of several."""


class Snapshots:
    """The snapshots of one run. For one thread only."""

    def __init__(self) -> None:
        self._known: dict[Key, _Snapshot] = {}
        self._fresh: list[_Snapshot] = []
        self._new = NewMemory()
        self._message = 0

    def begin(self) -> None:
        """Begin with a message."""
        self._message += 1
        self._new = NewMemory()

    @property
    def copied(self) -> int:
        """How many bytes were copied for this message."""
        return self._new.size

    def place(self, part: memoryview, owner: object) -> Place | None:
        """Return where a part lies that is what `owner` hands out; `None` if there is no room for it."""
        snapshot = self._snapshot(part, owner)
        if snapshot is None:
            return self._new.place(part)
        if snapshot.place is None:
            snapshot.place = self._new.place(part)
        return snapshot.place

    def adopt(self, view: memoryview, place: Place) -> None:
        """Take note that what a view shows lies in memory already."""
        snapshot = self._known[id(view), view.nbytes] = _Snapshot(ref(view), None, self._message)
        snapshot.place = place

    def end_pickle(self) -> None:
        """Take note that what pickle has made on the way is gone.

        NumPy hands out the buffer of an array in Fortran order by another array, made for that: then it is the array
        that owns the memory by which the snapshot is found again.
        """
        for snapshot in self._fresh:
            if snapshot.owner() is None and snapshot.root is not None:
                snapshot.owner, key = snapshot.root
                self._known[key] = snapshot
        self._fresh.clear()

    def end(self) -> None:
        """Take note that a message is complete, and let go of what is not worth its memory."""
        self._known = {key: snapshot for key, snapshot in self._known.items() if snapshot.owner() is not None}
        files: set[MemoryFile] = set()
        single = 0
        # The newest first.
        for key, snapshot in sorted(self._known.items(), key=lambda item: item[1].message, reverse=True):
            if snapshot.place is not None:
                file, _, size = snapshot.place
                single += 0 if snapshot.shared else size
                room = (snapshot.shared or single <= _SINGLE_BYTES) and len(files | {file}) <= _MOST_FILES
                if room or snapshot.message == self._message:
                    files.add(file)
                    continue
            snapshot.place = None
            if len(key) == 1 or len(self._known) > _MOST_KNOWN:
                del self._known[key]
        self._new = NewMemory()

    def close(self) -> None:
        """Let go of all memory: the run is over."""
        self._known.clear()
        self._fresh.clear()

    def _snapshot(self, part: memoryview, owner: object) -> _Snapshot | None:
        """Return the snapshot of a part, or `None` if it will not be found again."""
        if owner is None:
            return None
        if type(owner) is bytes:
            key: Key = (id(owner),)
            return self._found(key, owner) or self._added(key, lambda: owner, None)
        try:
            alive = ref(owner)
            if memoryview(cast("Any", owner)).nbytes != part.nbytes:
                return None
        except TypeError:
            return None
        key = id(owner), part.nbytes
        found = self._found(key, owner)
        root = None
        if found is None and (root := _root(owner, part.nbytes)) is not None:
            found = self._found(root[1], root[0]())
        return found or self._added(key, alive, root)

    def _found(self, key: Key, owner: object) -> _Snapshot | None:
        snapshot = self._known.get(key)
        if snapshot is None or snapshot.owner() is not owner:
            return None
        if snapshot.message != self._message:
            snapshot.shared = True
            snapshot.message = self._message
        return snapshot

    def _added(self, key: Key, owner: "Callable[[], object]", root: "tuple[ref[Any], Key] | None") -> _Snapshot:
        self._known[key] = snapshot = _Snapshot(owner, root, self._message)
        self._fresh.append(snapshot)
        return snapshot


def _root(owner: Any, size: int) -> "tuple[ref[Any], Key] | None":
    """Return the array to whose memory another one leads, and the key of that part of it."""
    try:
        address: int = owner.__array_interface__["data"][0]
        root = owner
        while hasattr(getattr(root, "base", None), "__array_interface__"):
            root = root.base
        return None if root is owner else (ref(root), (id(root), address, size))
    except Exception:  # it is no array after all
        return None
