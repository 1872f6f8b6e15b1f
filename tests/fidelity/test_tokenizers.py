"""Every tokeniser of the vendored tree gives the ids that upstream recorded from the original ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minerva._core import Model
from tests.conftest import LLAMA_TREE

SEPARATOR = "\n__ggml_vocab_test__\n"  # upstream's tests/test-tokenizer-0.cpp
VOCABULARIES = [
    name
    for name in sorted(p.name.removesuffix(".inp") for p in (LLAMA_TREE / "models").glob("ggml-vocab-*.gguf.inp"))
    if (LLAMA_TREE / "models" / f"{name}.out").exists()
]


@pytest.fixture(scope="module", params=VOCABULARIES)
def vocabulary(request: pytest.FixtureRequest) -> tuple[Any, list[tuple[str, list[int]]]]:
    path = LLAMA_TREE / "models" / request.param
    texts = Path(f"{path}.inp").read_bytes().decode().split(SEPARATOR)
    ids = [[int(token) for token in line.split()] for line in Path(f"{path}.out").read_text().splitlines()]
    if not texts[-1]:
        texts.pop()  # most files end with a separator
    return Model(str(path), vocab_only=True).vocab, list(zip(texts, ids, strict=True))


def test_the_tree_carries_the_recorded_vocabularies() -> None:
    assert len(VOCABULARIES) >= 14, f"found {VOCABULARIES} in {LLAMA_TREE}: run `make build`, which unpacks the tree"


def test_the_ids_are_the_original_tokenisers(vocabulary: tuple[Any, list[tuple[str, list[int]]]]) -> None:
    vocab, cases = vocabulary
    for text, ids in cases:
        assert vocab.tokenize(text, add_special=False, parse_special=False) == ids, repr(text)


def test_str_and_its_utf8_bytes_are_the_same_text(vocabulary: tuple[Any, list[tuple[str, list[int]]]]) -> None:
    vocab, cases = vocabulary
    for text, ids in cases:
        assert vocab.tokenize(text.encode(), add_special=False, parse_special=False) == ids


BYTE_LEVEL = [name for name in VOCABULARIES if not any(kind in name for kind in ("bert", "spm", "phi-3", "gemma"))]


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_a_byte_level_vocabulary_gives_any_text_back(name: str) -> None:
    vocab = Model(str(LLAMA_TREE / "models" / name), vocab_only=True).vocab
    text = "Naïve café — 東京 🦙\n\tdef f(x): return x**2  # 100 %"
    ids = vocab.tokenize(text, parse_special=False)
    assert b"".join(vocab.piece(token) for token in ids).decode() == text
