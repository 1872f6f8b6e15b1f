"""The header of a GGUF file, checked in memory-safe Python before any C code sees the file.

What llama.cpp would refuse, abort on, or trust wrongly is an `InvalidModelError` here: counts, string
lengths, types, shapes and tensor extents, all against the size of the file. Layout: ggml/docs/gguf.md.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple, TypeAlias

from minerva.models.ggml_types import ARRAY, STRING, TENSOR_TYPES, VALUE_FORMATS, TensorType
from minerva.models.gguf_cursor import Cursor

MAX_KEYS = 16_384
MAX_TENSORS = 65_536
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 63
MAX_ALIGNMENT = 1024 * 1024
MAX_ARRAY_ITEMS = 16 * 1024 * 1024
KEPT_TEXT = 4096
"""Bytes of a string value that are kept; KEPT_ITEMS: the longest array of integers that is."""
KEPT_ITEMS = 1024

_INT64_MAX = 2**63 - 1
_SCALARS = {kind: struct.Struct(layout) for kind, layout in VALUE_FORMATS.items()}


class Array(NamedTuple):
    """`items` holds a short array of integers (a value per layer); other arrays are walked, not kept."""

    kind: int
    length: int
    items: tuple[int, ...] = ()


class Tensor(NamedTuple):
    name: str
    kind: TensorType
    elements: int
    size: int


Value: TypeAlias = int | float | bool | str | Array


class Header(NamedTuple):
    version: int
    values: dict[str, Value]
    tensors: list[Tensor]
    file_size: int


def scan(path: Path) -> Header:
    """Read and check everything before the tensor data. Raises InvalidModelError, and nothing else."""
    with Cursor(path) as cursor:
        if not cursor.file_size:
            raise cursor.error("the file is empty")
        if (magic := cursor.read(min(4, cursor.file_size))) != b"GGUF":
            raise cursor.error(f"not a GGUF file: it begins with {magic!r}, not b'GGUF'")
        version = _version(cursor)
        n_tensors = _count(cursor, "tensors", MAX_TENSORS, at_least=24)
        n_keys = _count(cursor, "keys", MAX_KEYS, at_least=13)
        values = _values(cursor, n_keys)
        tensors = _tensors(cursor, n_tensors, _alignment(cursor, values))
        return Header(version, values, tensors, cursor.file_size)


def _version(cursor: Cursor) -> int:
    version = cursor.u32()
    if version & 0xFFFF == 0:
        raise cursor.error("written for a big-endian machine; convert it with gguf's convert-endian")
    if version not in (2, 3):
        raise cursor.error(f"GGUF version {version} is not supported; 2 and 3 are")
    return version


def _count(cursor: Cursor, what: str, limit: int, *, at_least: int) -> int:
    """A count of things that take `at_least` bytes each."""
    count = cursor.u64()
    if count > limit:
        raise cursor.error(f"claims {count:,} {what}; at most {limit:,} are accepted")
    if count * at_least > cursor.file_size:
        raise cursor.error(f"claims {count:,} {what}, more than {cursor.file_size:,} bytes can hold")
    return count


def _values(cursor: Cursor, count: int) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for index in range(count):
        cursor.what = f"key {index}"
        key = _name(cursor, MAX_KEY_BYTES)
        if key in values:
            raise cursor.error(f"key {key[:80]!r} appears twice")
        cursor.what = f"key {key[:80]!r}"
        values[key] = _value(cursor, cursor.u32())
    return values


def _name(cursor: Cursor, limit: int) -> str:
    name = cursor.string(limit)
    if not name or b"\0" in name:
        raise cursor.error(f"{cursor.what} has no usable name: {name[:80]!r}")
    return name.decode("utf-8", "backslashreplace")


def _value(cursor: Cursor, kind: int) -> Value:
    if kind == STRING:
        return cursor.string()[:KEPT_TEXT].decode("utf-8", "replace")
    if kind == ARRAY:
        return _array(cursor, cursor.u32(), cursor.u64())
    if kind not in _SCALARS:
        raise cursor.error(f"{cursor.what} has the unknown type {kind}")
    return cursor.unpack(_SCALARS[kind])


def _array(cursor: Cursor, kind: int, length: int) -> Array:
    if length > MAX_ARRAY_ITEMS:
        raise cursor.error(f"{cursor.what} has {length:,} items; at most {MAX_ARRAY_ITEMS:,} are accepted")
    if kind == STRING:
        cursor.skip_strings(length)
        return Array(kind, length)
    if kind not in _SCALARS:
        raise cursor.error(f"{cursor.what} is an array of the unsupported type {kind}")
    layout = _SCALARS[kind]
    if length > KEPT_ITEMS or layout.format[-1] in "fd":
        cursor.skip(length * layout.size)
        return Array(kind, length)
    return Array(kind, length, tuple(int(cursor.unpack(layout)) for _ in range(length)))


def _alignment(cursor: Cursor, values: dict[str, Value]) -> int:
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.error(f"general.alignment must be a power of two up to {MAX_ALIGNMENT:,}, not {alignment!r}")
    return alignment


def _tensors(cursor: Cursor, count: int, alignment: int) -> list[Tensor]:
    """Tensors lie one after the other, each padded to the alignment; so none overlaps another."""
    tensors: dict[str, tuple[Tensor, int]] = {}
    for index in range(count):
        cursor.what = f"tensor {index}"
        name = _name(cursor, MAX_NAME_BYTES)
        if name in tensors:
            raise cursor.error(f"tensor {name!r} appears twice")
        cursor.what = f"tensor {name!r}"
        tensors[name] = (_tensor(cursor, name), cursor.u64())
    start = _padded(cursor.offset, alignment)
    expected = 0
    for tensor, offset in tensors.values():
        if offset % alignment:
            raise cursor.error(f"tensor {tensor.name!r} is at {offset:,}, not a multiple of the alignment {alignment}")
        if offset != expected:
            how = "overlaps the one before it" if offset < expected else "leaves a gap before it"
            raise cursor.error(f"tensor {tensor.name!r} {how}: it is at {offset:,}, {expected:,} was due")
        if (end := start + offset + tensor.size) > cursor.file_size:
            raise cursor.error(f"tensor {tensor.name!r} ends at byte {end:,} but the file has {cursor.file_size:,}")
        expected = _padded(offset + tensor.size, alignment)
    return [tensor for tensor, _ in tensors.values()]


def _tensor(cursor: Cursor, name: str) -> Tensor:
    n_dims = cursor.u32()
    if not 1 <= n_dims <= 4:
        raise cursor.error(f"{cursor.what} has {n_dims} dimensions; 1 to 4 are possible")
    shape = [cursor.u64() for _ in range(n_dims)]
    elements = 1
    for extent in shape:
        elements *= extent
    if max(shape) > _INT64_MAX or elements > _INT64_MAX:
        raise cursor.error(f"{cursor.what} has an impossible shape: {' × '.join(map(str, shape))}")
    kind = TENSOR_TYPES.get(number := cursor.u32())
    if kind is None:
        raise cursor.error(f"{cursor.what} has the unknown type {number}")
    if shape[0] % kind.block:
        raise cursor.error(
            f"{cursor.what} has rows of {shape[0]:,}, not a multiple of {kind.name}'s block {kind.block}"
        )
    return Tensor(name, kind, elements, elements // kind.block * kind.size)


def _padded(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
