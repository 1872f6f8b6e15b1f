"""What a GPU changes when a model is loaded, on a machine without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minerva.engine import loading
from minerva.engine.options import EngineOptions

LAYERS = 2


@pytest.fixture
def offloaded(monkeypatch: pytest.MonkeyPatch, model_file: Callable[..., Path]) -> Callable[[int], int]:
    """How many layers a GPU with so much free memory is given."""

    def load(free: int) -> int:
        gpu = {"name": "GPU0", "description": "A GPU", "kind": "gpu", "memory_free": free, "memory_total": free}
        monkeypatch.setattr(loading._core, "devices", lambda: [gpu])
        given: list[int] = []
        monkeypatch.setattr(loading, "_open", lambda options, layers, progress: given.append(layers))
        loading._load_model(EngineOptions(model=str(model_file())), None, [])
        return given[0]

    return load


def test_a_gpu_with_room_takes_every_layer_and_the_output(offloaded: Callable[[int], int]) -> None:
    assert offloaded(1 << 40) >= LAYERS + 1


def test_a_gpu_without_room_takes_none(offloaded: Callable[[int], int]) -> None:
    assert offloaded(1 << 20) == 0


def test_what_the_header_says_of_a_model_is_known_without_its_weights(
    load_model: Callable[..., Any], model_file: Callable[..., Path]
) -> None:
    from minerva._core import Model

    header = Model(str(model_file()), vocab_only=True)
    assert len(header.vocab) == len(load_model().vocab)
    assert header.metadata("llama.block_count") == str(load_model().n_layer) == str(LAYERS)
