"""Where settings come from: flags > environment > ~/.minerva/config.json > defaults."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from minerva.config import Settings
from minerva.config_fields import accepted
from minerva.errors import ConfigError

MAX_FILE_BYTES = 1024 * 1024
_PREFIX = "MINERVA_"
_SECRET = ("api_key",)
_LLM_NAMES = {"LLM_SERVER_PORT": "port", "LLM_MODELS_DIR": "models_dir", "LLM_USE_GPU": "n_gpu_layers"}
_FALSE, _TRUE = ("0", "false", "no", "off"), ("1", "true", "yes", "on")

_STARTER: dict[str, Any] = {
    "model": None,
    "models_dir": "~/.minerva/models",
    "host": "127.0.0.1",
    "port": 11434,
    "ctx_size": None,
    "parallel": None,
    "n_gpu_layers": "auto",
    "aliases": {},
    "api_key": [],
    "log_level": "info",
}
"""What a person would edit, written on the first start."""


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from all sources. `flags` maps field names to values; `config` is the file to read.

    Raises ConfigError with the flag, variable or key that is wrong, its value, and what is accepted.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in (_from_file(config, environ), _from_environment(environ), _from_flags(flags or {})):
        for name, (value, source) in layer.items():
            values[name], sources[name] = value, source
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        value = "(hidden)" if name in _SECRET else repr(values[name])
        raise ConfigError(
            f"{sources[name]}: {value} is not accepted; give {accepted(Settings.model_fields[name])}", param=name
        ) from None
    settings.sources.update(sources)
    settings.template()
    settings.api_key_digests()
    return settings


_Layer = dict[str, tuple[Any, str]]
"""Field → its value and the source to name in a message."""


def flag_of(name: str) -> str:
    """The long flag of a field."""
    extra = Settings.model_fields[name].json_schema_extra
    flags: Any = extra.get("flags", []) if isinstance(extra, dict) else []
    return next((flag.split("/")[0] for flag in flags if flag.startswith("--")), f"--{name}")


def _from_flags(flags: Mapping[str, Any]) -> _Layer:
    return {name: (value, flag_of(name)) for name, value in flags.items()}


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    layer: _Layer = {}
    for variable, name in _LLM_NAMES.items():
        if text := environ.get(variable):
            layer[name] = (_use_gpu(text) if variable == "LLM_USE_GPU" else text, variable)
    known = {_PREFIX + name.upper(): name for name in Settings.model_fields}
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or not environ[variable]:
            continue
        if variable in known:
            layer[known[variable]] = (environ[variable], variable)
        elif variable != "MINERVA_CONFIG" and (near := difflib.get_close_matches(variable, known, 1, 0.9)):
            raise ConfigError(f"unknown environment variable {variable}; did you mean {near[0]}?")
    return layer


def _use_gpu(text: str) -> int | None:
    if text.lower() in _FALSE:
        return 0
    if text.lower() in _TRUE:
        return None
    raise ConfigError(f"LLM_USE_GPU: {text!r} is not accepted; give 0 or 1")


def _from_file(config: Path | None, environ: Mapping[str, str]) -> _Layer:
    chosen = config or (Path(environ["MINERVA_CONFIG"]) if environ.get("MINERVA_CONFIG") else None)
    path = chosen.expanduser() if chosen else Path.home() / ".minerva" / "config.json"
    if not chosen and not path.exists():
        _create(path)
        return {}
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES)
        content = json.loads(raw)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a JSON object of settings")
    for key in content:
        if key not in Settings.model_fields:
            near = difflib.get_close_matches(key, Settings.model_fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else "known: " + ", ".join(Settings.model_fields)
            raise ConfigError(f"{path}: unknown key {key!r}; {hint}", param=key)
    return {key: (value, f"{path}: {key}") for key, value in content.items()}


def _create(path: Path) -> None:
    """A first file to edit. It may come to hold keys: only its owner may read it. A read-only home is no error."""
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(json.dumps(_STARTER, indent=2) + "\n")
