"""Grammars by their source: compiling a schema is not cheap, and clients send the same one with every request."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict

from minerva._core import Grammar, grammar_of_schema
from minerva.errors import RequestError

CAPACITY = 128
MAX_BYTES = 1 << 20
MAX_DEPTH = 64


class GrammarCache:
    """Least recently used schemas first out. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gbnf: OrderedDict[str, str] = OrderedDict()

    def get(self, gbnf: str | None, json_schema: str | None) -> Grammar | None:
        """Raises `RequestError` for a schema that is too large, too deep, or cannot be expressed."""
        if gbnf:
            if len(gbnf) > MAX_BYTES:
                raise RequestError(f"a grammar of {len(gbnf)} bytes is over {MAX_BYTES}", param="grammar")
            return Grammar(gbnf)
        if json_schema is None:
            return None
        with self._lock:
            source = self._gbnf.get(json_schema)
            if source is not None:
                self._gbnf.move_to_end(json_schema)
        if source is None:
            check_schema(json_schema)
            source = grammar_of_schema(json_schema)
            with self._lock:
                self._gbnf[json_schema] = source
                if len(self._gbnf) > CAPACITY:
                    self._gbnf.popitem(last=False)
        return Grammar(source)


def check_schema(json_schema: str) -> None:
    """Size and depth, before C++ recurses over it."""
    if len(json_schema) > MAX_BYTES:
        raise RequestError(f"a JSON schema of {len(json_schema)} bytes is over {MAX_BYTES}", param="response_format")
    level = [json.loads(json_schema)]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise RequestError(f"a JSON schema deeper than {MAX_DEPTH} levels is not accepted", param="response_format")


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return list(node) if isinstance(node, list) else []
