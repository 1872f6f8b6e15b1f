"""What the gateway knows of a model without loading it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from minerva.errors import InvalidModelError
from minerva.models import gguf_header, vocabulary
from minerva.models.ggml_types import BY_NAME, FILE_TYPES
from minerva.models.gguf_header import Array, Header
from minerva.models.shards import shard_paths

MAX_BLOCKS = 512
"""llama.cpp's LLAMA_MAX_LAYERS: it aborts beyond."""

_GUESSED = 1024


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one model, over all its files. Sizes in bytes, contexts in tokens; 0 where the file says nothing.

    `kv_heads` has the number of key-value heads of each block: 0 for a block that keeps no such cache.
    """

    architecture: str
    name: str
    parameters: int
    quantization: str
    tensor_count: int
    file_size: int
    context_length: int
    embedding_length: int
    block_count: int
    head_count: int
    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    vocab_size: int
    tokenizer: str
    has_chat_template: bool

    def kv_bytes_per_token(self, type_k: str = "f16", type_v: str = "f16") -> int:
        """Bytes of KV cache that one token takes; an upper bound where a window or a latent cache saves some."""
        heads = sum(self.kv_heads)
        return _row_bytes(heads * self.key_length, type_k) + _row_bytes(heads * self.value_length, type_v)


def read_metadata(path: Path) -> ModelMetadata:
    """Check every file of the model and describe it. Raises InvalidModelError."""
    headers = [gguf_header.scan(shard) for shard in shard_paths(path)]
    _check_kind(path, headers)
    fields = _Fields(path, headers[0])
    tensors = [tensor for header in headers for tensor in header.tensors]
    block_count = fields.number("block_count")
    if block_count > MAX_BLOCKS:
        raise fields.error(f"{fields.architecture}.block_count is {block_count:,}; at most {MAX_BLOCKS} are possible")
    embedding_length = fields.number("embedding_length")
    head_counts = fields.per_block("attention.head_count", (0,) * block_count)
    head_count = max(head_counts, default=0)
    head_size = embedding_length // head_count if head_count else 0
    return ModelMetadata(
        architecture=fields.architecture,
        name=fields.text("general.name") or path.stem,
        parameters=sum(tensor.elements for tensor in tensors),
        quantization=_quantization(headers[0], tensors),
        tensor_count=len(tensors),
        file_size=sum(header.file_size for header in headers),
        context_length=fields.number("context_length"),
        embedding_length=embedding_length,
        block_count=block_count,
        head_count=head_count,
        kv_heads=fields.per_block("attention.head_count_kv", head_counts),
        key_length=fields.number("attention.key_length", head_size),
        value_length=fields.number("attention.value_length", head_size),
        vocab_size=vocabulary.check(path.name, headers[0].values),
        tokenizer=fields.text("tokenizer.ggml.model"),
        has_chat_template=bool(fields.text("tokenizer.chat_template")),
    )


class _Fields:
    """Typed access to the values of one header."""

    def __init__(self, path: Path, header: Header) -> None:
        self._file = path.name
        self._values = header.values
        self.architecture = self.text("general.architecture")
        if not self.architecture:
            raise self.error("general.architecture is missing")

    def error(self, message: str) -> InvalidModelError:
        return InvalidModelError(f"{self._file}: {message}")

    def text(self, key: str) -> str:
        value = self._values.get(key, "")
        if not isinstance(value, str):
            raise self.error(f"{key} must be a string")
        return "".join(filter(str.isprintable, value))  # it will be shown on a terminal

    def number(self, key: str, default: int = 0) -> int:
        key = f"{self.architecture}.{key}"
        value = self._values.get(key, default)
        if isinstance(value, Array):  # one value per block
            value = max(value.items, default=default)
        if type(value) is not int or not 0 <= value < 2**31:
            raise self.error(f"{key} must be a whole number from 0 to 2^31 - 1, not {value!r}")
        return value

    def per_block(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A count for each block, which the file gives once for all of them or one by one."""
        value = self._values.get(f"{self.architecture}.{key}")
        if value is None:
            return default
        if not isinstance(value, Array):
            return (self.number(key),) * len(default)
        if len(value.items) < len(default) or any(not 0 <= item < 2**31 for item in value.items):
            raise self.error(f"{self.architecture}.{key} must have a count for each of {len(default)} blocks")
        return value.items[: len(default)]


def _check_kind(path: Path, headers: list[Header]) -> None:
    first = headers[0].values
    kind = first.get("general.type", "model")
    if kind not in ("", "model", "vocab"):
        raise InvalidModelError(f"{path.name}: its general.type is {kind!r}: not a model that can be served")
    if (claimed := first.get("split.count", 1)) not in (0, len(headers)):
        raise InvalidModelError(f"{path.name}: part of {claimed} files, but its name says {len(headers)}")
    found = sum(len(header.tensors) for header in headers)
    if (due := first.get("split.tensors.count", found)) != found:
        raise InvalidModelError(f"{path.name}: its {len(headers)} files hold {found} tensors of {due}")


def _quantization(header: Header, tensors: list[gguf_header.Tensor]) -> str:
    """What the file says it is, or else the type that most of its elements have."""
    kind = header.values.get("general.file_type")
    if type(kind) is int and (name := FILE_TYPES.get(kind & ~_GUESSED)):
        return name
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.kind.name] += tensor.elements
    return elements.most_common(1)[0][0] if elements else "unknown"


def _row_bytes(elements: int, kind: str) -> int:
    block = BY_NAME[kind]
    return -(-elements // block.block) * block.size
