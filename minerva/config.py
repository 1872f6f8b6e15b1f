"""Every setting of the server, in one place: its default, its range, its help, its flag.

`config_sources.load` fills it from flags, environment, file and defaults, in that order of precedence.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import types
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationInfo, field_validator

from minerva.config_fields import access_field, engine_field, kinds_of, log_field, model_field, server_field
from minerva.engine.options import EngineOptions
from minerva.errors import ConfigError

DEFAULT_MODEL = "default"
"""The id that stands for the model that is served when a request names none."""

MAX_TEMPLATE_BYTES = 1024 * 1024
MAX_KEY_FILE_BYTES = 1024 * 1024
ALL_LAYERS = 9999
KVType: TypeAlias = Literal["f16", "bf16", "f32", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"]
_HASHED = re.compile(r"sha256:[0-9a-f]{64}")


class Settings(BaseModel):
    """None, and `auto` where it is written, mean: choose what fits this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str | None = model_field("A GGUF file, or the id of a model in the models folder.", "-m", "--model")
    models_dir: Path = model_field(
        "The folder that models are found in.", "--models-dir", default=Path("~/.minerva/models")
    )
    aliases: dict[str, str] = model_field(
        "Another name for a model: NAME=ID, or NAME alone for the default model.", "-a", "--alias", default={}
    )
    chat_template: str | None = model_field("A chat template (Jinja) in place of the model's own.", "--chat-template")
    chat_template_file: Path | None = model_field("The same, read from a file.", "--chat-template-file")
    max_models: int = model_field("Models kept in memory at once.", "--max-models", default=2, low=1, high=64)

    ctx_size: int | None = engine_field(
        "Tokens of context for one request; 0: what the model was trained with.",
        "-c", "--ctx-size", low=0, high=2**31 - 1,
    )  # fmt: skip
    parallel: int | None = engine_field("Requests decoded at once (slots).", "-np", "--parallel", low=1, high=256)
    kv_size: int | None = engine_field(
        "Tokens that all requests may hold together.", "--kv-size", low=256, high=2**31 - 1
    )
    batch_size: int = engine_field("Tokens in one step, at most.", "-b", "--batch-size", default=512, low=1, high=65536)
    ubatch_size: int = engine_field(
        "Tokens computed in one piece, at most.", "-ub", "--ubatch-size", default=512, low=1, high=65536
    )
    threads: int | None = engine_field("CPU threads while decoding.", "-t", "--threads", low=1, high=1024)
    threads_batch: int | None = engine_field("CPU threads on prompts.", "-tb", "--threads-batch", low=1, high=1024)
    n_gpu_layers: int | None = engine_field(
        "Layers on the GPU: a number, auto or all; 0 forces the CPU.",
        "-ngl", "--n-gpu-layers", "--gpu-layers", low=0, high=ALL_LAYERS, words=("auto", "all"),
    )  # fmt: skip
    main_gpu: int = engine_field("The GPU to use when one is enough.", "-mg", "--main-gpu", default=0, low=0, high=255)
    flash_attn: Literal["auto", "on", "off"] = engine_field("Flash attention.", "-fa", "--flash-attn", default="auto")
    cache_type_k: KVType = engine_field("Type of the cached keys.", "-ctk", "--cache-type-k", default="f16")
    cache_type_v: KVType = engine_field("Type of the cached values.", "-ctv", "--cache-type-v", default="f16")
    kv_unified: bool | None = engine_field("One KV cache for all slots.", "--kv-unified/--no-kv-unified")
    rope_scaling: Literal["auto", "none", "linear", "yarn"] = engine_field(
        "How positions past the trained context are made.", "--rope-scaling", default="auto"
    )
    rope_freq_base: float = engine_field(
        "RoPE base frequency; 0: the model's.", "--rope-freq-base", default=0, low=0, high=1e12
    )
    rope_freq_scale: float = engine_field(
        "RoPE frequency scale, 1/N for N times the context; 0: the model's.",
        "--rope-freq-scale", default=0, low=0, high=1000,
    )  # fmt: skip
    yarn_orig_ctx: int = engine_field(
        "Context that the model was trained with, for YaRN; 0: the model's.",
        "--yarn-orig-ctx", default=0, low=0, high=2**31 - 1,
    )  # fmt: skip
    prefix_cache: bool = engine_field(
        "Share the KV cells of common prefixes.", "--prefix-cache/--no-prefix-cache", default=True
    )
    cache_ram_mib: int = engine_field(
        "RAM for prefixes that the KV cache has no room for, in MiB.", "--cache-ram", default=2048, low=0, high=1 << 24
    )
    speculate: bool = engine_field(
        "Guess tokens from the text so far, where that pays.", "--speculate/--no-speculate", default=True
    )
    model_draft: str | None = engine_field(
        "A small GGUF file of the same family that guesses tokens for the model.", "-md", "--model-draft"
    )
    itl_target_ms: float = engine_field(
        "Gap between two tokens of an answer that prompts beside it should not exceed, in ms.",
        "--itl-target-ms", default=250, low=1, high=60_000,
    )  # fmt: skip
    mmap: bool = engine_field("Map the model file instead of reading it.", "--mmap/--no-mmap", default=True)
    mlock: bool = engine_field("Keep the model in RAM.", "--mlock", default=False)

    host: str = server_field("Address to listen on.", "--host", default="127.0.0.1")
    port: int = server_field("Port to listen on; 0: any free one.", "--port", default=11434, low=0, high=65535)
    queue_size: int = server_field(
        "Requests that may wait; more get 429.", "--queue-size", default=512, low=1, high=65536
    )
    request_timeout_s: float | None = server_field(
        "Seconds one request may take.", "--timeout", low=0.1, high=7 * 86400
    )
    grace_s: float = server_field(
        "Seconds that running requests get to finish when the server stops.", "--grace", default=30, low=0, high=3600
    )
    max_body_mb: int = server_field("Largest request body, in MiB.", "--max-body-mb", default=32, low=1, high=1024)
    max_connections: int = server_field("Open connections.", "--max-connections", default=1024, low=1, high=65536)

    api_key: list[str] = access_field(
        "A key that clients must send (repeatable).", "--api-key", default=[], shown=False
    )
    api_key_file: Path | None = access_field("Keys, one a line, plain or as sha256:<hex>.", "--api-key-file")
    allow_open_bind: bool = access_field(
        "Listen beyond this machine without an API key.", "--allow-open", default=False
    )
    allowed_hosts: list[str] = access_field(
        "A further Host name to answer to (repeatable).", "--allowed-host", default=[]
    )
    cors_origins: list[str] = access_field("A further web origin to allow (repeatable).", "--cors-origin", default=[])

    log_level: Literal["debug", "info", "warning", "error"] = log_field(
        "How much is logged.", "--log-level", default="info"
    )
    log_json: bool = log_field("Log lines are JSON.", "--log-json", default=False)
    log_prompts: bool = log_field("Log what clients send and get.", "--log-prompts", default=False)

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sources(self) -> dict[str, str]:
        """Field → where its value came from, as a person would name it; absent: it is the default."""
        return self._sources

    @field_validator("*", mode="before")
    @classmethod
    def _from_text(cls, value: object, info: ValidationInfo) -> object:
        """What a flag or a variable can only say as text; and no booleans where a number is wanted."""
        kinds = kinds_of(cls.model_fields[str(info.field_name)])
        if isinstance(value, bool) and kinds & {int, float} and bool not in kinds:
            raise ValueError("a number is wanted")
        if value == "auto" and types.NoneType in kinds and kinds & {int, float, bool}:
            return None
        if isinstance(value, str) and list in kinds:
            return [item.strip() for item in value.split(",") if item.strip()]
        return value

    @field_validator("n_gpu_layers", mode="before")
    @classmethod
    def _all_layers(cls, value: object) -> object:
        return ALL_LAYERS if value == "all" else value

    @field_validator("aliases", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """["gpt-4=qwen", "mine"] → {"gpt-4": "qwen", "mine": "default"}"""
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, list):
            return value
        pairs = [item.partition("=") for text in value for item in str(text).split(",") if item.strip()]
        return {alias.strip(): target.strip() or DEFAULT_MODEL for alias, _, target in pairs}

    @field_validator("flash_attn", mode="before")
    @classmethod
    def _on_or_off(cls, value: object) -> object:
        return {"true": "on", "1": "on", "false": "off", "0": "off"}.get(str(value).lower(), value)

    @field_validator("host", "model", "api_key", "allowed_hosts", "cors_origins")
    @classmethod
    def _not_empty(cls, value: str | list[str] | None) -> str | list[str] | None:
        if any(not text.strip() for text in ([value] if isinstance(value, str) else value or [])):
            raise ValueError("empty")
        return value

    @field_validator("models_dir", "chat_template_file", "api_key_file")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return value.expanduser() if value else None

    def engine_options(self, path: Path) -> EngineOptions:
        """How the model at `path` is loaded."""
        shared = set(EngineOptions.__struct_fields__) & set(type(self).model_fields) - {"model", "chat_template"}
        return EngineOptions(
            model=str(path),
            gpu_layers=self.n_gpu_layers,
            chat_template=self.template(),
            **{name: getattr(self, name) for name in shared},
        )

    def template(self) -> str | None:
        """The chat template that replaces the model's own, if one is given."""
        if self.chat_template_file is None:
            return self.chat_template
        if self.chat_template is not None:
            raise ConfigError("--chat-template and --chat-template-file exclude each other; give one")
        return _read("--chat-template-file", self.chat_template_file, MAX_TEMPLATE_BYTES)

    def api_key_digests(self) -> frozenset[bytes]:
        """SHA-256 of every accepted key; empty: no key is asked for."""
        keys = [key.strip() for key in self.api_key]
        if self.api_key_file:
            lines = _read("--api-key-file", self.api_key_file, MAX_KEY_FILE_BYTES).splitlines()
            found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
            if not found:
                raise ConfigError(f"--api-key-file {self.api_key_file}: holds no key")
            keys += found
        return frozenset(
            bytes.fromhex(key[7:]) if _HASHED.fullmatch(key) else hashlib.sha256(key.encode()).digest() for key in keys
        )

    def check_bind(self) -> None:
        """Refuse to listen beyond this machine without a key, unless that was asked for by name."""
        if self.allow_open_bind or _is_loopback(self.host) or self.api_key_digests():
            return
        raise ConfigError(
            f"{self.sources.get('host', '--host')} {self.host}: others could use this server without a key; "
            "give --api-key, or --allow-open to allow it",
            param="host",
        )


def _read(flag: str, path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise ConfigError(f"{flag} {path}: larger than {limit:,} bytes")
        return raw.decode()
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{flag} {path}: not UTF-8 text") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
