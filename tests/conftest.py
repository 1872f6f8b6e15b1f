"""Random-weight models, written once a run and loaded once a run, and what drives `_core` without the engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Before llama.cpp is loaded: threads that spin at every barrier make a busy machine five times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

LLAMA_TREE = Path(__file__).parents[1] / "vendor" / "llama.cpp" / "tree"

SPM = "llama-spm"
"""A small vocabulary (32,000) with a token for each byte: the default of the tests."""


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Path of a random model: keywords as `tools.random_model.write_model`; `shape` may be "wide" for K-quants."""
    from tools.random_model import Shape, write_model

    # The smallest width whose rows hold a whole K-quant block.
    wide = Shape(2, 256, 256, 4, 2, 64, context=4096, sliding_window=64)
    folder = tmp_path_factory.mktemp("models")

    def write(*, shape: Any = "test", arch: str = "llama", qtype: str = "f16", vocab: str = SPM) -> Path:
        path = folder / f"{arch}-{shape}-{qtype}-{vocab}.gguf"
        if not path.exists():
            write_model(path, shape=wide if shape == "wide" else shape, arch=arch, qtype=qtype, vocab=vocab)
        return path

    return write


@pytest.fixture(scope="session")
def load_model(model_file: Callable[..., Path]) -> Callable[..., Any]:
    """A loaded `_core.Model`, by the keywords of `model_file`."""
    from minerva._core import Model

    loaded: dict[Path, Model] = {}

    def load(**kwargs: Any) -> Model:
        path = model_file(**kwargs)
        if path not in loaded:
            loaded[path] = Model(str(path))
        return loaded[path]

    return load
