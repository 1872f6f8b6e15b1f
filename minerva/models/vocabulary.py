"""Whether a header's vocabulary can be used: what llama.cpp indexes without looking, or refuses to run without."""

from __future__ import annotations

from collections.abc import Mapping

from minerva.errors import InvalidModelError
from minerva.models.ggml_types import FLOAT32, INT32, STRING
from minerva.models.gguf_header import Array, Value

MAX_TOKENS = 4 * 1024 * 1024

_NEEDED = ("bos", "eos", "eot", "eom")
"""Ids out of range that matter. llama.cpp replaces the others (padding, unknown, …) by defaults, and files in
the field do have such."""

_NO_TOKEN = 0xFFFF_FFFF


def check(file: str, values: Mapping[str, Value]) -> int:
    """The number of tokens. Raises InvalidModelError when there are none, or the tables do not fit them."""
    if not values.get("tokenizer.ggml.model"):
        raise InvalidModelError(f"{file}: has no vocabulary: tokenizer.ggml.model is missing")
    tokens = values.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, Array) or tokens.kind != STRING or not tokens.length:
        raise InvalidModelError(f"{file}: has no vocabulary: tokenizer.ggml.tokens must be a list of strings")
    if tokens.length > MAX_TOKENS:
        raise InvalidModelError(f"{file}: a vocabulary of {tokens.length:,} tokens; at most {MAX_TOKENS:,}")
    for table, kinds in (("scores", (FLOAT32, INT32)), ("token_type", (INT32,))):
        given = values.get(f"tokenizer.ggml.{table}")
        if given is None:
            continue
        if not isinstance(given, Array) or given.kind not in kinds or given.length < tokens.length:
            raise InvalidModelError(f"{file}: tokenizer.ggml.{table} must have a number for each token")
    for role in _NEEDED:
        key = f"tokenizer.ggml.{role}_token_id"
        token = values.get(key, 0)
        if type(token) is not int or not (0 <= token < tokens.length or token in (-1, _NO_TOKEN)):
            raise InvalidModelError(f"{file}: {key} is {token!r}, but there are {tokens.length:,} tokens")
    return tokens.length
