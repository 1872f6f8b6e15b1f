"""GGUF files written byte by byte, so that a test can get any one of them wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return u64(len(raw)) + raw


def key(name: str, value: str | int | list[str] | list[int] | list[float]) -> bytes:
    if isinstance(value, str):
        return text(name) + u32(8) + text(value)
    if isinstance(value, int):
        return text(name) + u32(4) + u32(value)
    if value and isinstance(value[0], str):
        return text(name) + u32(9) + u32(8) + u64(len(value)) + b"".join(text(str(item)) for item in value)
    if value and isinstance(value[0], float):
        return text(name) + u32(9) + u32(6) + u64(len(value)) + struct.pack(f"<{len(value)}f", *value)
    return text(name) + u32(9) + u32(5) + u64(len(value)) + struct.pack(f"<{len(value)}i", *value)


def tensor(name: str, shape: Iterable[int], kind: int = 0, offset: int = 0) -> bytes:
    dims = list(shape)
    return text(name) + u32(len(dims)) + b"".join(u64(dim) for dim in dims) + u32(kind) + u64(offset)


TOKENS = ["<unk>", "<s>", "</s>", "a", "b"]

KEYS: dict[str, bytes] = {
    "general.architecture": key("general.architecture", "llama"),
    "general.name": key("general.name", "Tiny"),
    "general.file_type": key("general.file_type", 15),
    "llama.block_count": key("llama.block_count", 2),
    "llama.context_length": key("llama.context_length", 256),
    "llama.embedding_length": key("llama.embedding_length", 64),
    "llama.attention.head_count": key("llama.attention.head_count", 4),
    "llama.attention.head_count_kv": key("llama.attention.head_count_kv", 2),
    "tokenizer.ggml.model": key("tokenizer.ggml.model", "llama"),
    "tokenizer.ggml.tokens": key("tokenizer.ggml.tokens", TOKENS),
    "tokenizer.ggml.scores": key("tokenizer.ggml.scores", [0.0] * 5),
    "tokenizer.ggml.token_type": key("tokenizer.ggml.token_type", [1] * 5),
    "tokenizer.ggml.bos_token_id": key("tokenizer.ggml.bos_token_id", 1),
    "tokenizer.ggml.eos_token_id": key("tokenizer.ggml.eos_token_id", 2),
    "tokenizer.chat_template": key("tokenizer.chat_template", "{{ messages }}"),
}

TENSORS: list[bytes] = [
    tensor("token_embd.weight", (64, 5), 0, 0),
    tensor("blk.0.attn_q.weight", (64, 64), 8, 1280),
    tensor("output_norm.weight", (64,), 0, 1280 + 4352),
]
DATA = 1280 + 4352 + 256


def gguf(
    *,
    keys: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    data: int = DATA,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_keys: int | None = None,
    alignment: int = 32,
) -> bytes:
    keys = list(KEYS.values()) if keys is None else keys
    tensors = TENSORS if tensors is None else tensors
    head = magic + u32(version)
    head += u64(len(tensors) if n_tensors is None else n_tensors)
    head += u64(len(keys) if n_keys is None else n_keys)
    head += b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + bytes(data)


def replaced(**changes: bytes | None) -> list[bytes]:
    """KEYS with some values changed or left out; `__` in a name stands for a dot."""
    keys = dict(KEYS)
    for name, raw in changes.items():
        name = name.replace("__", ".")
        keys.pop(name, None)
        if raw is not None:
            keys[name] = raw
    return list(keys.values())


def write(path: Path, raw: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf() if raw is None else raw)
    return path
