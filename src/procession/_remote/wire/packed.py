"""Values as bytes, with what is large in memory that the other side maps instead of reading it from a pipe.

    value ──pickle──▶ bytes ─────────────pipe──────────────▶ bytes ──▶ value
              └─ large parts ──▶ MemoryFile ──descriptor──▶ mapped ──┘

Large parts are buffers that objects hand out (arrays, frames; protocol 5 of pickle), which the reader gets as private
views, and stretches of the pickle itself, such as those of a large `bytes`. A small value is what pickle makes of it.
"""

import pickle
from collections.abc import Callable, Sequence
from errno import EMFILE
from functools import partial
from typing import Any, NamedTuple, Protocol

from procession._remote.wire.memory_file import IS_SUPPORTED, MemoryFile

LARGE = 1 << 20
"""A part of more bytes than this is put into memory."""


class Place(NamedTuple):
    """Where a part lies."""

    file: MemoryFile
    start: int
    size: int


Where = tuple[int, int, int]
"""The same on the way: which of the files, where in it, and how many bytes."""
Pickle = tuple[Sequence[bytes | Where], Sequence[Where]]
"""The stretches of a pickle, and the buffers that belong to it."""


class Packed:
    """A value whose large parts lie in files. It is pickled without these: they travel as open files."""

    __slots__ = ("apart", "count", "files", "pickles")

    def __init__(
        self, pickles: Sequence[Pickle], count: int, *, apart: bool = False, files: Sequence[MemoryFile] = ()
    ) -> None:
        self.pickles = pickles
        self.count = count
        """How many files there are."""
        self.apart = apart
        """Whether the pickles are those of the items of a list. Else there is one."""
        self.files = files
        """The files, as far as they are at hand."""

    def __reduce__(self) -> tuple[Callable[..., "Packed"], tuple[Sequence[Pickle], int, bool]]:
        return _arrived, (self.pickles, self.count, self.apart)

    @property
    def size(self) -> int:
        """How many bytes it takes, without what lies in the files."""
        return sum(len(part) for parts, _ in self.pickles for part in parts if isinstance(part, bytes))

    def unpacked(self) -> Any:
        """Return the value, made anew. Raises what pickle raises, and `OSError` where files or memory are missing."""
        if len(self.files) < self.count:
            raise OSError(EMFILE, "its memory could not be opened: too many open files in this process")
        values = [self._loaded(*one) for one in self.pickles]
        return values if self.apart else values[0]

    def _loaded(self, parts: Sequence[bytes | Where], buffers: Sequence[Where]) -> Any:
        mapped = [self._mapped(where) for where in buffers]
        if len(parts) == 1:
            (part,) = parts
            return pickle.loads(part if isinstance(part, bytes) else self._mapped(part), buffers=mapped)  # noqa: S301
        return pickle.Unpickler(_Stretches(parts, self.files), buffers=mapped).load()  # noqa: S301

    def _mapped(self, where: Where) -> memoryview:
        number, start, size = where
        return self.files[number].mapped(start, size)


def _arrived(pickles: Sequence[Pickle], count: int, apart: bool) -> Packed:
    return Packed(pickles, count, apart=apart)


def unpack(data: bytes | Packed) -> Any:
    """Return the packed value, made anew."""
    return data.unpacked() if isinstance(data, Packed) else pickle.loads(data)  # noqa: S301


class _Stretches:
    """The stretches of a pickle as one file to read."""

    def __init__(self, parts: Sequence[bytes | Where], files: Sequence[MemoryFile]) -> None:
        self._parts = list(reversed(parts))
        self._files = files
        self._read = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        data = bytearray(size)
        return bytes(memoryview(data)[: self.readinto(data)])

    def readinto(self, buffer: Any) -> int:
        """Copy the next bytes to a buffer, without a copy between; return how many there were."""
        view = memoryview(buffer).cast("B")
        size = len(view)
        while len(view) and self._parts:
            part = self._parts[-1]
            whole = len(part) if isinstance(part, bytes) else part[2]
            count = min(whole - self._read, len(view))
            if isinstance(part, bytes):
                view[:count] = part[self._read : self._read + count]
            else:
                number, start, _ = part
                self._files[number].read_into(view[:count], start + self._read)
            view = view[count:]
            self._read += count
            if self._read == whole:
                self._parts.pop()
                self._read = 0
        return size - len(view)

    def readline(self) -> bytes:
        """Do nothing: only the oldest protocols have lines."""
        return b""


class Memory(Protocol):
    """Decides where a large part lies."""

    def place(self, part: memoryview, owner: object) -> Place | None:
        """Return where a part lies that is what `owner` hands out; `None` if there is no room for it."""
        ...


class NewMemory:
    """Puts every part into one new file."""

    def __init__(self) -> None:
        self._file: MemoryFile | None = None
        self._full = not IS_SUPPORTED

    @property
    def size(self) -> int:
        """How many bytes were put there."""
        return 0 if self._file is None else self._file.size

    def place(self, part: memoryview, owner: object = None) -> Place | None:  # noqa: ARG002
        """Return where a part lies; `None` if there is no room for it."""
        if self._full:
            return None
        try:
            if self._file is None:
                self._file = MemoryFile.made()
            return Place(self._file, self._file.append(part), part.nbytes)
        except OSError:
            self._full = True  # what is left goes through the pipe
            return None


class Writer:
    """A file that pickle writes to, with a callback for the buffers that go beside the pickle."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._parts: list[bytes | Place] = []
        self._buffers: list[Place] = []
        self._files: dict[MemoryFile, int] = {}
        self._pickles: list[Pickle] = []

    def write(self, data: Any) -> int:
        """Take a stretch of a pickle. What belongs to a large `bytes` comes alone, as that very object."""
        view = memoryview(data)
        place = self._memory.place(view, data if type(data) is bytes else None) if view.nbytes > LARGE else None
        self._parts.append(bytes(data) if place is None else place)
        return view.nbytes

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer; return whether it is to stand in the pickle instead."""
        try:
            view = buffer.raw()
        except BufferError:  # it is not in one piece, and pickle says so
            return True
        place = self._memory.place(view, memoryview(buffer).obj) if view.nbytes > LARGE else None
        if place is not None:
            self._buffers.append(place)
        return place is None

    def clear(self) -> None:
        """Forget the pickle that is being written."""
        self._parts.clear()
        self._buffers.clear()

    def end(self) -> None:
        """Go on to another pickle."""
        parts = [part if isinstance(part, bytes) else self._where(part) for part in self._joined()]
        self._pickles.append((parts, [self._where(place) for place in self._buffers]))
        self.clear()

    def packed(self, *, apart: bool = False) -> bytes | Packed:
        """Return the written value: bytes, if it is one pickle without large parts."""
        if not (self._files or apart):
            (part,), _ = self._pickles[0]
            assert isinstance(part, bytes)
            return part
        return Packed(self._pickles, len(self._files), apart=apart, files=list(self._files))

    def _joined(self) -> list[bytes | Place]:
        """Return the stretches with neighbours in one piece, which may be large then, too."""
        joined: list[bytes | Place] = []
        small: list[bytes] = []
        for part in (*self._parts, None):
            if isinstance(part, bytes):
                small.append(part)
                continue
            if small:
                data = b"".join(small)
                joined.append((self._memory.place(memoryview(data), None) if len(data) > LARGE else None) or data)
                small.clear()
            if part is not None:
                joined.append(part)
        return joined

    def _where(self, place: Place) -> Where:
        return self._files.setdefault(place.file, len(self._files)), place.start, place.size


class Packer:
    """Packs values one after another, each with memory of its own if it is large. Small ones cost what pickle costs."""

    def __init__(self) -> None:
        self._writer: Writer | None = None
        self._dumps = partial(pickle.dumps, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=self._take)

    def __call__(self, value: object) -> bytes | Packed:
        """Return a value packed. Raises what pickle raises."""
        try:
            data = self._dumps(value)
            if self._writer is None:
                return data if len(data) <= LARGE else pack_bytes(data)
            return _packed(self._writer, data)
        finally:
            self._writer = None

    def _take(self, buffer: pickle.PickleBuffer) -> bool:
        if self._writer is None:
            if memoryview(buffer).nbytes <= LARGE:
                return True
            self._writer = Writer(NewMemory())
        return self._writer.take(buffer)


def pack_bytes(data: bytes) -> bytes | Packed:
    """Return a value that was pickled already, in memory if it is large."""
    return _packed(Writer(NewMemory()), data)


def _packed(writer: Writer, data: bytes) -> bytes | Packed:
    """Return a pickle that belongs to what the writer has taken, packed together with that."""
    writer.write(data)
    writer.end()
    return writer.packed()
