"""How a setting is declared, and described to a person."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo


def server_field(
    help: str,
    *flags: str,
    default: Any = None,
    panel: str = "Server",
    low: float | None = None,
    high: float | None = None,
    words: tuple[str, ...] = (),
    shown: bool = True,
) -> Any:
    """A field with its help, its flags, its range, and the words it takes in place of a number."""
    extra: Any = {"flags": list(flags), "panel": panel, "words": list(words)}
    return Field(default, ge=low, le=high, description=help, json_schema_extra=extra, validate_default=True, repr=shown)


def model_field(help: str, *flags: str, **more: Any) -> Any:
    return server_field(help, *flags, panel="Model", **more)


def engine_field(help: str, *flags: str, **more: Any) -> Any:
    return server_field(help, *flags, panel="Engine", **more)


def access_field(help: str, *flags: str, **more: Any) -> Any:
    return server_field(help, *flags, panel="Access", **more)


def log_field(help: str, *flags: str, **more: Any) -> Any:
    return server_field(help, *flags, panel="Logging", **more)


def kinds_of(field: FieldInfo) -> set[Any]:
    """The types a field takes: {int, NoneType} for `int | None`, {list} for `list[str]`."""
    hint = field.annotation
    parts = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    return {typing.get_origin(part) or part for part in parts}


def accepted(field: FieldInfo) -> str:
    """What a field takes, in words."""
    kinds = kinds_of(field)
    extra: Any = field.json_schema_extra
    if Literal in kinds:
        return "one of " + ", ".join(typing.get_args(field.annotation))
    also = "".join(f" or {word}" for word in (extra["words"] or ["auto"] * (types.NoneType in kinds)))
    if kinds & {int, float}:
        low, high = (getattr(limit, side) for limit, side in zip(field.metadata, ("ge", "le"), strict=True))
        return f"a {'whole ' if int in kinds else ''}number from {low} to {high}{also}"
    if bool in kinds:
        return f"true or false{also}"
    if dict in kinds:
        return 'names and model ids, as {"alias": "id"} or alias=id'
    return (
        "a list of texts that are not empty"
        if list in kinds
        else "a path"
        if Path in kinds
        else "a text that is not empty"
    )
