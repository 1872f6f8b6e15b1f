"""Which files of a folder are models, what they are called, and whether they have changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from minerva.errors import InvalidModelError
from minerva.models.shards import is_later, shard_paths, stem

Signature: TypeAlias = tuple[tuple[int, int], ...]
"""Size and modification time (ns) of each file of a model."""

_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._/+@-]+")


def walk(folder: Path) -> Iterator[Path]:
    """GGUF files below `folder` that stand for a model. Symlinked files are followed, symlinked folders are not."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if path.suffix.lower() != ".gguf" or name.startswith(".") or "mmproj" in name.lower() or is_later(path):
                continue
            yield path


def signature_of(path: Path) -> Signature:
    try:
        shards = shard_paths(path)
    except InvalidModelError:
        shards = [path]
    return tuple(_size_and_time(shard) for shard in shards)


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return 0, 0
    return found.st_size, found.st_mtime_ns


def id_of(path: Path) -> str:
    """The path without suffix and shard number, in characters that need no escape in a URL."""
    return _NOT_IN_IDS.sub("-", path.with_name(stem(path)).as_posix()).strip("-") or "model"
