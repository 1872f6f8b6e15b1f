"""Minerva: language models on your own machine.

    from minerva import LLM

    with LLM("model.gguf") as llm:
        print(llm.chat([{"role": "user", "content": "Hello!"}]).text)

Importing this package loads no native code; the first use of `LLM` or `AsyncLLM` does.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pkgutil import extend_path as _extend_path
from typing import TYPE_CHECKING, Any

from minerva.errors import (
    ContextLengthError,
    EngineError,
    InvalidModelError,
    MinervaError,
    ModelLoadError,
    OverloadedError,
    RequestError,
)

if TYPE_CHECKING:
    from minerva.llm import LLM, AsyncLLM, Chunk, Completion

# In a checkout this folder hides an installed Minerva: the extension is found there all the same.
__path__ = _extend_path(__path__, __name__)

try:
    __version__ = version("minerva-llm")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "LLM",
    "AsyncLLM",
    "Chunk",
    "Completion",
    "ContextLengthError",
    "EngineError",
    "InvalidModelError",
    "MinervaError",
    "ModelLoadError",
    "OverloadedError",
    "RequestError",
    "__version__",
]

_LAZY = {"LLM", "AsyncLLM", "Chunk", "Completion"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from minerva import llm

        return getattr(llm, name)
    raise AttributeError(f"module 'minerva' has no attribute {name!r}")
