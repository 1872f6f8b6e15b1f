"""The vocabularies of the llama.cpp tree (`models/ggml-vocab-*.gguf`).

`gguf.GGUFReader` makes numpy views of every string, which takes seconds for 300,000 of them;
this reads the same key-value section into plain Python values in a fraction of one.
"""

import os
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gguf import GGUFValueType as Kind

LLAMA_DIR_VARIABLE = "MINERVA_LLAMA_CPP_DIR"
CHECKOUT_TREE = Path(__file__).parents[2] / "vendor" / "llama.cpp" / "tree"

SCALARS = {
    Kind.UINT8: "B", Kind.INT8: "b", Kind.UINT16: "H", Kind.INT16: "h", Kind.UINT32: "I", Kind.INT32: "i",
    Kind.FLOAT32: "f", Kind.BOOL: "?", Kind.UINT64: "Q", Kind.INT64: "q", Kind.FLOAT64: "d",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One key-value pair; `item` is the element type of an array, else None."""

    key: str
    kind: Kind
    item: Kind | None
    value: Any


def llama_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """The llama.cpp tree: the one given, else the environment's, else the one the build unpacked."""
    return Path(given or os.environ.get(LLAMA_DIR_VARIABLE) or CHECKOUT_TREE)


def available_vocabularies(llama: str | os.PathLike[str] | None = None) -> list[str]:
    files = (llama_dir(llama) / "models").glob("ggml-vocab-*.gguf")
    return sorted(f.stem.removeprefix("ggml-vocab-") for f in files)


def read_vocabulary(name: str, llama: str | os.PathLike[str] | None = None) -> tuple[Entry, ...]:
    """The `tokenizer.*` entries of the vocabulary `name`, e.g. `qwen2`.

    Raises FileNotFoundError when the tree has none of that name.
    """
    path = llama_dir(llama) / "models" / f"ggml-vocab-{name}.gguf"
    if not path.is_file():
        known = ", ".join(available_vocabularies(llama)) or f"no llama.cpp tree there; set {LLAMA_DIR_VARIABLE}"
        raise FileNotFoundError(f"no vocabulary {name!r} at {path} ({known})")
    return _read(path)


@lru_cache(maxsize=2)
def _read(path: Path) -> tuple[Entry, ...]:
    scan = _Scan(path.read_bytes())
    return tuple(e for e in scan.entries() if e.key.startswith("tokenizer."))


class _Scan:
    """A cursor over a GGUF header. The files are part of the pinned tree: trusted input."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def entries(self) -> list[Entry]:
        magic, version, _tensors, count = self._take("<4sIQQ")
        if magic != b"GGUF" or version < 2:
            raise ValueError("not a GGUF file of version 2 or later")
        return [self._entry() for _ in range(count)]

    def _entry(self) -> Entry:
        key = self._string()
        kind = Kind(self._take("<I")[0])
        if kind is not Kind.ARRAY:
            return Entry(key, kind, None, self._value(kind))
        item, length = self._take("<IQ")
        return Entry(key, kind, Kind(item), self._array(Kind(item), length))

    def _array(self, item: Kind, length: int) -> list[Any]:
        if item in SCALARS:
            return list(self._take(f"<{length}{SCALARS[item]}"))
        return [self._value(item) for _ in range(length)]

    def _value(self, kind: Kind) -> Any:
        return self._string() if kind is Kind.STRING else self._take("<" + SCALARS[kind])[0]

    def _string(self) -> str:
        start = self._at + 8
        (length,) = struct.unpack_from("<Q", self._data, self._at)
        self._at = start + length
        return self._data[start : self._at].decode("utf-8", "surrogateescape")

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values
