"""Put a model together and write it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf import GGUFValueType as Kind
from numpy.typing import NDArray

from tools.random_model.architectures import ARCHITECTURES, Architecture, Tensor
from tools.random_model.blocks import QTYPES, fits, random_rows, row_bytes
from tools.random_model.shapes import SHAPES, Shape
from tools.random_model.vocabulary import Entry, read_vocabulary

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
QUIET = 0.1


def write_model(
    path: str | os.PathLike[str],
    *,
    shape: str | Shape = "test",
    arch: str = "qwen3",
    qtype: str = "q4_0",
    vocab: str = "llama-spm",
    seed: int = 0,
    plain_text: bool = True,
    llama_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a random model to `path`; the same arguments give the same bytes.

    `plain_text` makes every token that is not printable ASCII on its own improbable (control tokens
    too), so that greedy text has one visible piece per token and does not end by itself.
    Raises KeyError for an unknown shape, arch or qtype, FileNotFoundError for an unknown vocabulary.
    """
    architecture = ARCHITECTURES[arch]
    dimensions = SHAPES[shape] if isinstance(shape, str) else shape
    if architecture.square:
        dimensions = replace(dimensions, head_size=dimensions.width // dimensions.heads)
    vocabulary = read_vocabulary(vocab, llama_dir)
    tokens = _value(vocabulary, "tokenizer.ggml.tokens")

    writer = GGUFWriter(path, arch)
    writer.add_name("random")  # never the architecture: llama.cpp gives tokens attributes by a "phi3" in the name
    _add_hyperparameters(writer, architecture, dimensions, arch, len(tokens), qtype)
    for e in vocabulary:
        if e.key != "tokenizer.chat_template":
            writer.add_key_value(e.key, e.value, e.kind, e.item)
    writer.add_chat_template(CHATML)

    tensors = [(t, _type_of(t, QTYPES[qtype])) for t in architecture.tensors(dimensions, len(tokens))]
    for t, q in tensors:
        stored = (*t.shape[:-1], row_bytes(q, t.shape[-1]))
        writer.add_tensor_info(t.name, stored, np.dtype(np.uint8), int(np.prod(stored)), raw_dtype=q)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.Generator(np.random.SFC64(seed))
    gain = _row_gain(vocabulary) if plain_text else None
    for t, q in tensors:
        writer.write_tensor_data(_fill(rng, t, q, gain if t.name == "token_embd.weight" else None))
    writer.close()
    return Path(path)


def _add_hyperparameters(
    writer: GGUFWriter, architecture: Architecture, shape: Shape, arch: str, vocabulary: int, qtype: str
) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(vocabulary)
    writer.add_quantization_version(2)
    name = qtype.upper()
    writer.add_file_type(LlamaFileType.ALL_F32 if name == "F32" else LlamaFileType[f"MOSTLY_{name}{_suffix(name)}"])
    for key, value in architecture.metadata(shape).items():
        key = f"{arch}.{key}"
        if isinstance(value, list):
            writer.add_key_value(key, value, Kind.ARRAY, Kind.INT32)
        else:
            writer.add_key_value(key, value, Kind.FLOAT32 if isinstance(value, float) else Kind.UINT32)


def _suffix(name: str) -> str:
    return "_M" if name in ("Q4_K", "Q5_K") else ""


def _type_of(tensor: Tensor, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """As llama-quantize chooses: a tied output matrix keeps six bits, rows that do not fit a K-quant eight."""
    if tensor.full:
        return GGMLQuantizationType.F32
    columns = tensor.shape[-1]
    q6 = GGMLQuantizationType.Q6_K
    if tensor.name == "token_embd.weight" and fits(q6, columns) and row_bytes(wanted, columns) < row_bytes(q6, columns):
        return q6
    return wanted if fits(wanted, columns) else GGMLQuantizationType.Q8_0


def _fill(
    rng: np.random.Generator, tensor: Tensor, qtype: GGMLQuantizationType, gain: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    if not tensor.full:
        return random_rows(rng, qtype, tensor.shape, tensor.std, gain)
    values = tensor.mean + tensor.std * rng.standard_normal(tensor.shape, dtype=np.float32)
    return values.astype("<f4").view(np.uint8)


def _row_gain(vocabulary: tuple[Entry, ...]) -> NDArray[np.float32]:
    tokens: list[str] = _value(vocabulary, "tokenizer.ggml.tokens")
    kinds: list[int] = _value(vocabulary, "tokenizer.ggml.token_type")
    plain = [k == TokenType.NORMAL and _is_plain(t) for t, k in zip(tokens, kinds, strict=True)]
    return np.where(plain, 1.0, QUIET).astype(np.float32)


def _is_plain(token: str) -> bool:
    text = token.lstrip("Ġ▁")  # the space of byte-level BPE and of SentencePiece
    return bool(text) and text.isascii() and text.isprintable()


def _value(vocabulary: tuple[Entry, ...], key: str) -> list[Any]:
    return next(list(e.value) for e in vocabulary if e.key == key)
