"""Command-line options made from the fields of Settings, so that a setting is written down once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from minerva.config import Settings
from minerva.config_fields import accepted, kinds_of
from minerva.config_sources import load

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="The settings file, instead of ~/.minerva/config.json.", rich_help_panel="Server"),
]


def with_settings(names: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each named setting, and `--config`; it is called with the loaded Settings first."""
    fields = {name: Settings.model_fields[name] for name in names}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(config: Path | None = None, **given: Any) -> None:
            others = {name: given.pop(name) for name in list(given) if name not in fields}
            flags = {name: value for name, value in given.items() if value not in (None, [])}
            command(load(flags, config=config), **others)

        signature = inspect.signature(command, eval_str=True)
        own = [one.replace(kind=one.KEYWORD_ONLY) for one in list(signature.parameters.values())[1:]]
        options = [_parameter(name, field) for name, field in fields.items()]
        file = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigFile)
        run.__signature__ = inspect.Signature([*options, file, *own])  # type: ignore[attr-defined]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Values stay text here: Settings checks them, with the same words as for a variable or a key of the file."""
    kinds = kinds_of(field)
    extra: Any = field.json_schema_extra
    annotation: Any = bool | None if bool in kinds else list[str] | None if kinds & {list, dict} else str | None
    option = typer.Option(
        *extra["flags"],
        help=f"{field.description}{_default(field)}",
        metavar="" if bool in kinds else _metavar(field),
        show_default=False,
        rich_help_panel=extra["panel"],
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )


def _default(field: FieldInfo) -> str:
    if field.default in (None, [], {}, False):
        return ""
    return f" Default: {'yes' if field.default is True else field.default}."


def _metavar(field: FieldInfo) -> str:
    kinds = kinds_of(field)
    if (words := accepted(field)).startswith("one of "):
        choices = words.removeprefix("one of ").split(", ")
        return "|".join(choices) if len(choices) < 5 else "TYPE"
    if kinds & {int, float}:
        return "N" if int in kinds else "SECONDS"
    return "PATH" if Path in kinds else "TEXT"
