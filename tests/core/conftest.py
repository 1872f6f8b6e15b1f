from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.driving import Driver


@pytest.fixture(scope="session")
def model(load_model: Callable[..., Any]) -> Any:
    """Llama, 32,000 tokens, a token for each byte."""
    return load_model()


@pytest.fixture
def make(model: Any) -> Callable[..., Driver]:
    """A fresh context and batch over `model`, by `Context`'s keywords."""

    def build(**options: Any) -> Driver:
        return Driver(model, **options)

    return build
