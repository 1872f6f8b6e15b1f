"""Prefixes that the KV cache had no room for, kept in RAM until they are asked for again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from minerva.engine.radix import common_prefix


@dataclass(slots=True, frozen=True)
class Saved:
    """`blob` restores all of `tokens`; the first `length` of them were asked for."""

    tokens: list[int]
    blob: bytes
    length: int


class RamTier:
    """Saved KV cells of whole prefixes, `limit` bytes of them at most, the least recently used first out.

    The blobs are trusted input to llama.cpp, so they never leave this process.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._entries: OrderedDict[tuple[str, int], tuple[list[int], bytes]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, namespace: str, tokens: list[int], blob: bytes) -> None:
        if len(blob) > self.limit:
            return
        key = (namespace, hash(tuple(tokens)))
        replaced = self._entries.pop(key, None)
        self.bytes += len(blob) - (len(replaced[1]) if replaced else 0)
        self._entries[key] = (tokens, blob)
        while self.bytes > self.limit:
            _, (_, gone) = self._entries.popitem(last=False)
            self.bytes -= len(gone)

    def find(self, namespace: str, tokens: list[int], limit: int) -> Saved | None:
        """The entry that agrees with tokens[:limit] for longest, or None."""
        best: tuple[int, tuple[str, int]] | None = None
        for key, (saved, _) in self._entries.items():
            if key[0] == namespace and saved[:1] == tokens[:1]:
                n = common_prefix(saved, tokens, 0, limit)
                if best is None or n > best[0]:
                    best = (n, key)
        if best is None or best[0] == 0:
            return None
        length, key = best
        self._entries.move_to_end(key)
        return Saved(*self._entries[key], length)
