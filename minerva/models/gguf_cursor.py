"""A forward-only reader over an untrusted file that never looks, or allocates, beyond its bounds."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from minerva.errors import InvalidModelError

MAX_HEADER = 128 * 1024 * 1024
"""Bytes. The largest header in the field (a 262k-token vocabulary with its merges) is 16 MB."""

MAX_STRING = 16 * 1024 * 1024
"""Bytes of one string that is read; chat templates stay below 100 kB."""

_CHUNK = 1024 * 1024
_U64 = struct.Struct("<Q")


class Cursor:
    """`what` is the thing being read, for messages; `offset` the byte that is read next.

    Reads with `pread` and not from a mapping: a file that shrinks under a mapping kills the process.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.what = "the header"
        self._fd = open_regular(path)
        self.file_size = os.fstat(self._fd).st_size
        self._end = min(self.file_size, MAX_HEADER)
        self._buffer = b""
        self._base = 0
        self._at = 0

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def offset(self) -> int:
        return self._base + self._at

    def error(self, message: str) -> InvalidModelError:
        return InvalidModelError(f"{self.name}: {message}")

    def read(self, size: int) -> bytes:
        self._fill(size)
        start = self._at
        self._at += size
        return self._buffer[start : self._at]

    def unpack(self, layout: struct.Struct) -> int | float | bool:
        """One value."""
        self._fill(layout.size)
        (value,) = layout.unpack_from(self._buffer, self._at)
        self._at += layout.size
        return value  # type: ignore[no-any-return]

    def u32(self) -> int:
        return int.from_bytes(self.read(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.read(8), "little")

    def string(self, limit: int = MAX_STRING) -> bytes:
        length = self.u64()
        if length > limit:
            raise self.error(f"{self.what} has a string of {length:,} bytes; at most {limit:,} are read")
        return self.read(length)

    def skip(self, size: int) -> None:
        self._check(size)
        self._at += size

    def skip_strings(self, count: int) -> None:
        """Walk `count` strings. Decodes nothing: a vocabulary of 152k tokens takes about 20 ms."""
        self._check(8 * count)
        left = count
        while left:
            self._fill(8)
            buffer, at, unpack = self._buffer, self._at, _U64.unpack_from
            try:
                while left:
                    at += 8 + unpack(buffer, at)[0]
                    left -= 1
            except (struct.error, OverflowError):  # beyond this chunk, or beyond any file
                pass
            self._at = at
            self._check(0)

    def _check(self, size: int) -> None:
        if self.offset + size <= self._end:
            return
        if self._end < self.file_size:
            raise self.error(f"the header is longer than {MAX_HEADER:,} bytes")
        raise self.error(f"truncated: {self.what} ends after byte {self.offset + size:,}, the file has {self._end:,}")

    def _fill(self, size: int) -> None:
        self._check(size)
        if self._at + size > len(self._buffer):
            self._base, self._at = self.offset, 0
            self._buffer = _pread(self._fd, max(size, _CHUNK), self._base)
            if len(self._buffer) < size:
                raise self.error(f"truncated while it was read: {self.what} at byte {self._base:,}")


def open_regular(path: Path) -> int:
    """A descriptor of a regular file. A pipe without a writer does not block, and is refused."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidModelError(f"{path.name}: cannot be opened: {reason}") from None
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        kind = "a directory" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
        raise InvalidModelError(f"{path.name}: not a model file but {kind}")
    return fd


def _pread(fd: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes; fewer only at the end of the file."""
    pieces: list[bytes] = []
    while size and (piece := os.pread(fd, size, offset)):
        pieces.append(piece)
        size -= len(piece)
        offset += len(piece)
    return b"".join(pieces)
