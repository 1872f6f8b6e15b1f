"""A random model reads back as what was asked for. That llama.cpp loads it, the engine's tests show."""

from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")

from gguf import GGMLQuantizationType, GGUFReader, quants  # noqa: E402

from tools.random_model import ARCHITECTURES, QTYPES, SHAPES, available_vocabularies, write_model  # noqa: E402
from tools.random_model.blocks import random_rows  # noqa: E402

VOCAB = "llama-spm"
pytestmark = pytest.mark.skipif(VOCAB not in available_vocabularies(), reason="no llama.cpp tree with vocabularies")


def read(path: Path) -> GGUFReader:
    return GGUFReader(str(path))


def test_metadata_and_tensor_shapes(tmp_path: Path) -> None:
    shape = SHAPES["test"]
    model = read(write_model(tmp_path / "m.gguf", shape="test", arch="qwen3", qtype="q4_0", vocab=VOCAB))

    def value(key: str) -> object:
        field = model.get_field(key)
        assert field is not None, key
        return field.contents()

    assert value("general.architecture") == "qwen3"
    assert value("qwen3.block_count") == shape.layers
    assert value("qwen3.embedding_length") == shape.width
    assert value("qwen3.attention.head_count_kv") == shape.kv_heads
    assert value("qwen3.context_length") == shape.context
    assert "<|im_start|>" in str(value("tokenizer.chat_template"))
    tokens = value("tokenizer.ggml.tokens")
    assert isinstance(tokens, list)
    assert len(tokens) == 32000

    tensors = {t.name: t for t in model.tensors}
    assert list(tensors["token_embd.weight"].shape) == [shape.width, len(tokens)]
    assert list(tensors["blk.1.ffn_down.weight"].shape) == [shape.feed_forward, shape.width]
    assert tensors["blk.0.attn_q.weight"].tensor_type == GGMLQuantizationType.Q4_0
    assert tensors["output_norm.weight"].tensor_type == GGMLQuantizationType.F32
    assert "blk.2.attn_q.weight" not in tensors


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_is_a_readable_file(tmp_path: Path, arch: str) -> None:
    model = read(write_model(tmp_path / "m.gguf", shape="test", arch=arch, qtype="q8_0", vocab=VOCAB))
    names = [t.name for t in model.tensors]
    assert "token_embd.weight" in names
    assert len(names) == len(set(names))
    for t in model.tensors:
        assert np.isfinite(quants.dequantize(t.data, t.tensor_type)).all(), t.name


def test_the_seed_decides_the_bytes(tmp_path: Path) -> None:
    def written(seed: int) -> bytes:
        return write_model(tmp_path / "m.gguf", shape="test", qtype="q4_0", vocab=VOCAB, seed=seed).read_bytes()

    assert written(1) == written(1)
    assert written(1) != written(2)


@pytest.mark.parametrize("name", QTYPES)
def test_weights_have_the_spread_asked_for(name: str) -> None:
    rows = random_rows(np.random.default_rng(0), QTYPES[name], (128, 512), std=0.05)
    weights = quants.dequantize(rows, QTYPES[name])
    assert weights.shape == (128, 512)
    assert np.isfinite(weights).all()
    assert weights.std() == pytest.approx(0.05, rel=0.05)
    assert abs(weights.mean()) < 0.005


def test_unprintable_tokens_are_improbable(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", shape="test", arch="llama", qtype="f32", vocab=VOCAB)
    rows = next(t for t in read(path).tensors if t.name == "token_embd.weight").data
    end_of_sequence, plain = 2, 3034  # "</s>" and an English word
    assert np.linalg.norm(rows[end_of_sequence]) < 0.3 * np.linalg.norm(rows[plain])


def test_an_unknown_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-vocabulary"):
        write_model(tmp_path / "m.gguf", vocab="no-such-vocabulary")


def test_square_architectures_derive_the_head_size(tmp_path: Path) -> None:
    model = read(write_model(tmp_path / "m.gguf", shape="test", arch="phi3", vocab=VOCAB))
    query_key_value = next(t for t in model.tensors if t.name == "blk.0.attn_qkv.weight")
    shape = SHAPES["test"]
    head = shape.width // shape.heads
    assert query_key_value.shape[1] == (shape.heads + 2 * shape.kv_heads) * head
