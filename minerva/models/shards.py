"""Models split into several files: name-00001-of-00003.gguf and so on."""

from __future__ import annotations

import re
from pathlib import Path

from minerva.errors import InvalidModelError

MAX_SHARDS = 999
_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})")


def stem(path: Path) -> str:
    """The file's name without its shard number and suffix."""
    match = _SHARD.fullmatch(path.stem)
    return match["stem"] if match else path.stem


def is_later(path: Path) -> bool:
    """Whether this is a shard other than the first, which stands for the whole model."""
    match = _SHARD.fullmatch(path.stem)
    return match is not None and int(match["index"]) != 1


def shard_paths(path: Path) -> list[Path]:
    """Every file of the model that begins with `path`: itself alone when it is not split."""
    match = _SHARD.fullmatch(path.stem)
    if not match:
        return [path]
    if is_later(path):
        raise InvalidModelError(
            f"{path.name}: part {int(match['index'])} of a split model; "
            f"name its first part, {match['stem']}-00001-of-{match['count']}{path.suffix}"
        )
    count = int(match["count"])
    if not 1 <= count <= MAX_SHARDS:
        raise InvalidModelError(f"{path.name}: claims {count} parts; 1 to {MAX_SHARDS} are possible")
    return [path.with_name(f"{match['stem']}-{n:05}-of-{count:05}{path.suffix}") for n in range(1, count + 1)]
