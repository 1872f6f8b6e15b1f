from __future__ import annotations

import os
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import gguf as gguf_package
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minerva.errors import InvalidModelError
from minerva.models.ggml_types import TENSOR_TYPES
from minerva.models.gguf_header import scan
from minerva.models.metadata import read_metadata

from .gguf_bytes import DATA, KEYS, TENSORS, gguf, key, replaced, tensor, text, u32, u64, write

TREE = Path(os.environ.get("MINERVA_LLAMA_CPP_DIR", "/opt/llama/src"))
VOCABULARIES = sorted((TREE / "models").glob("ggml-vocab-*.gguf"))


def refused(path: Path, raw: bytes) -> str:
    with pytest.raises(InvalidModelError) as caught:
        read_metadata(write(path / "model.gguf", raw))
    return caught.value.message


def test_says_what_a_good_file_is(tmp_path: Path) -> None:
    model = read_metadata(write(tmp_path / "model.gguf"))
    assert (model.architecture, model.name, model.quantization) == ("llama", "Tiny", "Q4_K_M")
    assert model.parameters == 64 * 5 + 64 * 64 + 64
    assert model.tensor_count == 3
    assert model.file_size == (tmp_path / "model.gguf").stat().st_size
    assert (model.context_length, model.embedding_length, model.block_count) == (256, 64, 2)
    assert (model.head_count, model.kv_heads, model.key_length, model.value_length) == (4, (2, 2), 16, 16)
    assert (model.vocab_size, model.tokenizer, model.has_chat_template) == (5, "llama", True)


def test_kv_bytes_per_token(tmp_path: Path) -> None:
    model = read_metadata(write(tmp_path / "model.gguf"))
    assert model.kv_bytes_per_token() == 2 * 2 * (16 + 16) * 2
    assert model.kv_bytes_per_token("q8_0", "f16") == 2 * 34 + 2 * 2 * 16 * 2


def test_heads_per_block(tmp_path: Path) -> None:
    keys = replaced(llama__attention__head_count_kv=key("llama.attention.head_count_kv", [2, 0]))
    assert read_metadata(write(tmp_path / "model.gguf", gguf(keys=keys))).kv_heads == (2, 0)


def test_quantization_of_a_file_that_does_not_say(tmp_path: Path) -> None:
    keys = replaced(general__file_type=None)
    assert read_metadata(write(tmp_path / "model.gguf", gguf(keys=keys))).quantization == "Q8_0"


def test_what_the_gguf_package_writes(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "written.gguf"
    writer = gguf_package.GGUFWriter(path, "llama")
    writer.add_name("Written")
    writer.add_file_type(gguf_package.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "é"])
    writer.add_custom_alignment(64)
    writer.add_tensor("token_embd.weight", np.zeros((3, 32), dtype=np.float16))
    writer.add_tensor("output.weight", np.zeros((3, 7), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = read_metadata(path)
    assert (model.name, model.quantization, model.parameters, model.vocab_size) == ("Written", "F16", 117, 3)


@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem)
def test_every_vocabulary_of_the_tree(path: Path) -> None:
    started = time.perf_counter()
    model = read_metadata(path)
    assert model.tensor_count == 0
    assert model.vocab_size > 10_000
    assert time.perf_counter() - started < 2.0


def test_block_sizes_are_the_gguf_packages() -> None:
    for kind, sizes in gguf_package.GGML_QUANT_SIZES.items():
        if kind.name != "Q8_1":  # the package still has its size of 2023
            assert TENSOR_TYPES[kind.value] == (kind.name, *sizes)


# Not regular files.


def test_empty(tmp_path: Path) -> None:
    assert refused(tmp_path, b"") == "model.gguf: the file is empty"


@pytest.mark.timeout(10)
def test_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(InvalidModelError, match=r"model.gguf: not a model file but a pipe"):
        read_metadata(tmp_path / "model.gguf")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="not a model file but a directory"):
        read_metadata(tmp_path)


def test_device() -> None:
    with pytest.raises(InvalidModelError, match="not a model file but a device"):
        read_metadata(Path("/dev/null"))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"gone.gguf: cannot be opened: No such file"):
        read_metadata(tmp_path / "gone.gguf")


def test_name_with_a_nul() -> None:
    with pytest.raises(InvalidModelError, match="cannot be opened"):
        read_metadata(Path("a\0b.gguf"))


# The header.

FLOAT_KEY = text("general.alignment") + u32(6) + u32(0)
LONG = 2**60

MALFORMED: dict[str, tuple[bytes, str]] = {
    "magic": (gguf(magic=b"PK\3\4"), "not a GGUF file"),
    "short magic": (b"GG", "not a GGUF file"),
    "version 1": (gguf(version=1), "GGUF version 1 is not supported"),
    "version 4": (gguf(version=4), "GGUF version 4 is not supported"),
    "big endian": (gguf(version=3 << 24), "big-endian"),
    "many tensors": (gguf(n_tensors=2**63), "claims 9,223,372,036,854,775,808 tensors"),
    "more tensors than bytes": (gguf(n_tensors=60_000), "more than"),
    "many keys": (gguf(n_keys=2**64 - 1), "keys; at most"),
    "more keys than bytes": (gguf(n_keys=16_000), "more than"),
    "one key too many": (gguf(n_keys=16), "tensor 0 has a string of"),
    "no keys": (gguf(keys=[]), "general.architecture is missing"),
    "long key": (gguf(keys=[u64(LONG)]), "key 0 has a string of"),
    "unnamed key": (gguf(keys=[key("", 1)]), "key 0 has no usable name"),
    "key with a nul": (gguf(keys=[key("a\0b", 1)]), "no usable name"),
    "key twice": (gguf(keys=[key("a", 1), key("a", 2)]), "key 'a' appears twice"),
    "unknown value type": (gguf(keys=[text("a") + u32(13) + bytes(8)]), "key 'a' has the unknown type 13"),
    "long value": (gguf(keys=[text("a") + u32(8) + u64(LONG)]), "key 'a' has a string of"),
    "value beyond the end": (gguf(keys=[text("a") + u32(8) + u64(2**20)]), "truncated: key 'a'"),
    "nested array": (gguf(keys=[text("a") + u32(9) + u32(9) + u64(1) + bytes(99)]), "unsupported type 9"),
    "unknown array type": (gguf(keys=[text("a") + u32(9) + u32(99) + u64(1)]), "unsupported type 99"),
    "long array": (gguf(keys=[text("a") + u32(9) + u32(0) + u64(LONG)]), "items; at most"),
    "array beyond the end": (gguf(keys=[text("a") + u32(9) + u32(10) + u64(2**20)]), "truncated: key 'a'"),
    "strings beyond the end": (gguf(keys=[text("a") + u32(9) + u32(8) + u64(2**20)]), "truncated: key 'a'"),
    "a long string in an array": (gguf(keys=[text("a") + u32(9) + u32(8) + u64(2) + u64(2**64 - 1)]), "truncated: key"),
    "the last string of an array": (gguf(keys=[text("a") + u32(9) + u32(8) + u64(1) + u64(2**40)]), "truncated: key"),
    "alignment 0": (gguf(keys=[key("general.alignment", 0)]), "power of two"),
    "alignment 48": (gguf(keys=[key("general.alignment", 48)]), "power of two"),
    "alignment 2^31": (gguf(keys=[key("general.alignment", 2**31)]), "power of two"),
    "alignment 0.0": (gguf(keys=[FLOAT_KEY]), "power of two"),
    "tensor name": (gguf(tensors=[tensor("x" * 64, (1,))]), "tensor 0 has a string of 64 bytes; at most 63"),
    "tensor twice": (gguf(tensors=[tensor("x", (8,)), tensor("x", (8,), 0, 32)]), "tensor 'x' appears twice"),
    "no dimension": (gguf(tensors=[tensor("x", ())]), "tensor 'x' has 0 dimensions"),
    "five dimensions": (gguf(tensors=[tensor("x", (1,) * 5)]), "tensor 'x' has 5 dimensions"),
    "2^32 - 1 dimensions": (gguf(tensors=[text("x") + u32(2**32 - 1)]), "dimensions; 1 to 4"),
    "negative dimension": (gguf(tensors=[tensor("x", (2**64 - 32,))]), "impossible shape"),
    "hidden negative dimension": (gguf(tensors=[tensor("x", (0, 2**63))]), "impossible shape"),
    "overflowing product": (gguf(tensors=[tensor("x", (2**32, 2**32))]), "impossible shape: 4294967296 × 4294967296"),
    "overflowing bytes": (gguf(tensors=[tensor("x", (2**62,))]), "tensor 'x' ends at byte"),
    "unknown tensor type": (gguf(tensors=[tensor("x", (32,), 43)]), "tensor 'x' has the unknown type 43"),
    "removed tensor type": (gguf(tensors=[tensor("x", (32,), 4)]), "unknown type 4"),
    "half a block": (gguf(tensors=[tensor("x", (48,), 2)]), "not a multiple of Q4_0's block 32"),
    "odd offset": (gguf(tensors=[tensor("x", (8,), 0, 8)]), "not a multiple of the alignment 32"),
    "overlap": (gguf(tensors=[tensor("x", (64,)), tensor("y", (8,), 0, 32)]), "tensor 'y' overlaps"),
    "gap": (gguf(tensors=[tensor("x", (8,)), tensor("y", (8,), 0, 64)]), "tensor 'y' leaves a gap"),
    "offset beyond": (gguf(tensors=[tensor("x", (8,), 0, 2**63)]), "leaves a gap"),
    "data too short": (gguf(data=DATA - 1), "tensor 'output_norm.weight' ends at byte"),
    "architecture is a number": (
        gguf(keys=replaced(general__architecture=key("general.architecture", 7))),
        "general.architecture must be a string",
    ),
    "context length is text": (
        gguf(keys=replaced(llama__context_length=key("llama.context_length", "many"))),
        "llama.context_length must be a whole number",
    ),
    "too many blocks": (gguf(keys=replaced(llama__block_count=key("llama.block_count", 2**31 - 1))), "at most 512"),
    "too few head counts": (
        gguf(keys=replaced(llama__attention__head_count_kv=key("llama.attention.head_count_kv", [2]))),
        "for each of 2 blocks",
    ),
    "adapter": (gguf(keys=[*KEYS.values(), key("general.type", "adapter")]), "'adapter': not a model"),
    "no tokenizer": (gguf(keys=replaced(tokenizer__ggml__model=None)), "tokenizer.ggml.model is missing"),
    "no tokens": (gguf(keys=replaced(tokenizer__ggml__tokens=None)), "has no vocabulary"),
    "empty tokens": (
        gguf(keys=replaced(tokenizer__ggml__tokens=text("tokenizer.ggml.tokens") + u32(9) + u32(8) + u64(0))),
        "has no vocabulary",
    ),
    "tokens are numbers": (
        gguf(keys=replaced(tokenizer__ggml__tokens=key("tokenizer.ggml.tokens", [1, 2]))),
        "must be a list of strings",
    ),
    "too few scores": (
        gguf(keys=replaced(tokenizer__ggml__scores=key("tokenizer.ggml.scores", [0.0]))),
        "tokenizer.ggml.scores must have a number for each token",
    ),
    "too few token types": (
        gguf(keys=replaced(tokenizer__ggml__token_type=key("tokenizer.ggml.token_type", [1]))),
        "tokenizer.ggml.token_type must have",
    ),
    "eos out of range": (
        gguf(keys=replaced(tokenizer__ggml__eos_token_id=key("tokenizer.ggml.eos_token_id", 5))),
        "tokenizer.ggml.eos_token_id is 5, but there are 5 tokens",
    ),
}


@pytest.mark.parametrize(("raw", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(tmp_path: Path, raw: bytes, message: str) -> None:
    said = refused(tmp_path, raw)
    assert said.startswith("model.gguf: ")
    assert message in said


def test_a_token_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    keys = replaced(tokenizer__ggml__bos_token_id=key("tokenizer.ggml.bos_token_id", 2**32 - 1))
    assert read_metadata(write(tmp_path / "model.gguf", gguf(keys=keys))).vocab_size == 5


def test_control_characters_of_a_name_are_dropped(tmp_path: Path) -> None:
    keys = replaced(general__name=key("general.name", "\x1b[31mred\n"))
    assert read_metadata(write(tmp_path / "model.gguf", gguf(keys=keys))).name == "[31mred"


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = gguf()
    header = len(whole) - DATA
    for size in [*range(header + 1), *range(header + 1, len(whole), 997), len(whole) - 1]:
        refused(tmp_path, whole[:size])


FUZZ = settings(max_examples=400, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survives(path: Path, raw: bytes) -> None:
    """Either a description or an InvalidModelError, in bounded memory."""
    tracemalloc.start()
    with suppress(InvalidModelError):
        read_metadata(write(path / "model.gguf", raw))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


@FUZZ
@given(flips=st.lists(st.tuples(st.integers(0, len(gguf()) - DATA), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    raw = bytearray(gguf())
    for at, value in flips:
        raw[at] = value
    survives(tmp_path, bytes(raw))


@FUZZ
@given(at=st.integers(4, len(gguf()) - DATA), junk=st.binary(max_size=32), cut=st.integers(0, 32))
def test_spliced_bytes(tmp_path: Path, at: int, junk: bytes, cut: int) -> None:
    raw = gguf()
    survives(tmp_path, raw[:at] + junk + raw[at + cut :])


@FUZZ
@given(at=st.integers(4, len(gguf()) - DATA), value=st.sampled_from([0, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]))
def test_absurd_numbers_anywhere(tmp_path: Path, at: int, value: int) -> None:
    raw = bytearray(gguf())
    raw[at : at + 8] = u64(value)
    survives(tmp_path, bytes(raw))


@FUZZ
@given(junk=st.binary(max_size=256))
def test_junk_after_the_counts(tmp_path: Path, junk: bytes) -> None:
    survives(tmp_path, b"GGUF" + u32(3) + u64(1) + u64(2) + junk)


def test_a_long_vocabulary_is_walked_across_chunks(tmp_path: Path) -> None:
    tokens = [f"token-{n}" * (1 + n % 7) for n in range(60_000)]
    path = write(
        tmp_path / "model.gguf",
        gguf(
            keys=replaced(
                tokenizer__ggml__tokens=key("tokenizer.ggml.tokens", tokens),
                tokenizer__ggml__scores=None,
                tokenizer__ggml__token_type=None,
            )
        ),
    )
    assert read_metadata(path).vocab_size == 60_000


def test_a_header_beyond_the_cap_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", gguf(keys=[text("a") + u32(9) + u32(10) + u64(16 * 2**20)], data=0))
    os.truncate(path, 2**40)
    with pytest.raises(InvalidModelError, match="the header is longer than 134,217,728 bytes"):
        scan(path)
    path = write(tmp_path / "model.gguf", gguf(keys=[text("a") + u32(9) + u32(8) + u64(16 * 2**20)], data=0))
    os.truncate(path, 2**40)
    with pytest.raises(InvalidModelError, match="the header is longer than 134,217,728 bytes"):
        scan(path)


# Split models.


def shards(folder: Path, count: int = 2) -> list[Path]:
    first = [*KEYS.values(), key("split.count", count), key("split.tensors.count", len(TENSORS) + count - 1)]
    paths = [write(folder / f"big-00001-of-{count:05}.gguf", gguf(keys=first))]
    for number in range(2, count + 1):
        raw = gguf(keys=[key("split.no", number - 1)], tensors=[tensor("more", (32,))], data=128)
        paths.append(write(folder / f"big-{number:05}-of-{count:05}.gguf", raw))
    return paths


def test_split_model_is_one_model(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    model = read_metadata(paths[0])
    assert model.tensor_count == 4
    assert model.parameters == 64 * 5 + 64 * 64 + 64 + 32
    assert model.file_size == sum(path.stat().st_size for path in paths)


def test_missing_shard(tmp_path: Path) -> None:
    paths = shards(tmp_path, 3)
    paths[1].unlink()
    with pytest.raises(InvalidModelError, match=r"big-00002-of-00003.gguf: cannot be opened: No such file"):
        read_metadata(paths[0])


def test_later_shard(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    with pytest.raises(InvalidModelError, match=r"name its first part, big-00001-of-00002.gguf"):
        read_metadata(paths[1])


def test_shards_that_do_not_belong_together(tmp_path: Path) -> None:
    paths = shards(tmp_path)
    write(paths[1], gguf(keys=[key("split.no", 1)], tensors=[], data=0))
    with pytest.raises(InvalidModelError, match="its 2 files hold 3 tensors of 4"):
        read_metadata(paths[0])
    write(tmp_path / "alone.gguf", paths[0].read_bytes())
    with pytest.raises(InvalidModelError, match="part of 2 files, but its name says 1"):
        read_metadata(tmp_path / "alone.gguf")
