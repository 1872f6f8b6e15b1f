from __future__ import annotations

import hashlib
import json
import stat
import typing
from pathlib import Path
from typing import Any

import pytest

from minerva import config
from minerva._core import CACHE_TYPES, FLASH_ATTENTION, ROPE_SCALING
from minerva.config import Settings
from minerva.config_sources import load
from minerva.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def file(home: Path, content: object) -> Path:
    path = home / ".minerva" / "config.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def refused(flags: dict[str, Any] | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags, environ=environ)
    return caught.value.message


def test_defaults(home: Path) -> None:
    settings = load(environ={})
    assert (settings.host, settings.port, settings.model) == ("127.0.0.1", 11434, None)
    assert settings.models_dir == home / ".minerva" / "models"
    assert settings.n_gpu_layers is None
    assert settings.sources == {}


def test_flags_over_environment_over_file_over_defaults(home: Path) -> None:
    path = file(home, {"port": 1, "ctx_size": 1, "parallel": 1})
    environ = {"MINERVA_PORT": "2", "MINERVA_CTX_SIZE": "2"}
    settings = load({"port": "3"}, environ=environ)
    assert (settings.port, settings.ctx_size, settings.parallel, settings.batch_size) == (3, 2, 1, 512)
    assert settings.sources == {"port": "--port", "ctx_size": "MINERVA_CTX_SIZE", "parallel": f"{path}: parallel"}


def test_the_first_start_writes_a_file_to_edit(home: Path) -> None:
    load(environ={})
    path = home / ".minerva" / "config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["port"] == 11434
    assert load(environ={}).model_dump() == Settings().model_dump()


def test_a_home_that_cannot_be_written_is_no_error(home: Path) -> None:
    (home / ".minerva").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        load(environ={"MINERVA_CONFIG": "~/.minerva/config.json"})
    assert load(environ={}).port == 11434


def test_another_file(home: Path, tmp_path: Path) -> None:
    file(home, {"port": 1})
    other = tmp_path / "other.json"
    other.write_text('{"port": 2}')
    assert load(config=other, environ={}).port == 2
    assert load(environ={"MINERVA_CONFIG": str(other)}).port == 2
    with pytest.raises(ConfigError, match=r"gone.json: cannot be read: No such file"):
        load(config=tmp_path / "gone.json", environ={})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON: Expecting property name"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must be a JSON object"),
        ({"prot": 1}, "unknown key 'prot'; did you mean 'port'?"),
        ({"xyzzy": 1}, "unknown key 'xyzzy'; known: model, models_dir, "),
        ({"port": 70000}, "config.json: port: 70000 is not accepted; give a whole number from 0 to 65535"),
        ({"port": True}, "port: True is not accepted; give a whole number from 0 to 65535"),
        ({"port": 1.5}, "port: 1.5 is not accepted"),
        ({"port": None}, "port: None is not accepted"),
        ({"port": "auto"}, "port: 'auto' is not accepted; give a whole number from 0 to 65535"),
        ({"port": {"a": 1}}, "port: {'a': 1} is not accepted"),
        ({"ctx_size": -1}, "ctx_size: -1 is not accepted; give a whole number from 0 to 2147483647 or auto"),
        ({"parallel": 0}, "parallel: 0 is not accepted; give a whole number from 1 to 256 or auto"),
        ({"n_gpu_layers": "most"}, "give a whole number from 0 to 9999 or auto or all"),
        ({"mmap": "perhaps"}, "mmap: 'perhaps' is not accepted; give true or false"),
        ({"flash_attn": "fast"}, "flash_attn: 'fast' is not accepted; give one of auto, on, off"),
        ({"cache_type_k": "q3"}, "give one of f16, bf16, f32, q8_0"),
        ({"log_level": "loud"}, "give one of debug, info, warning, error"),
        ({"aliases": {"a": 1}}, 'give names and model ids, as {"alias": "id"} or alias=id'),
        ({"host": ""}, "host: '' is not accepted; give a text that is not empty"),
        ({"grace_s": 1e9}, "grace_s: 1000000000.0 is not accepted; give a number from 0 to 3600"),
        ({"grace_s": float("nan")}, "grace_s: nan is not accepted"),
        ({"cors_origins": 3}, "give a list of texts that are not empty"),
    ],
)
def test_a_wrong_file(home: Path, content: object, message: str) -> None:
    path = file(home, content)
    said = refused()
    assert str(path) in said
    assert message in said


def test_a_wrong_variable_or_flag() -> None:
    assert refused(MINERVA_PORT="many") == "MINERVA_PORT: 'many' is not accepted; give a whole number from 0 to 65535"
    assert refused({"parallel": "999"}).startswith("--parallel: '999' is not accepted; give a whole number from 1 to")
    assert refused({"request_timeout_s": "0"}).startswith("--timeout: '0' is not accepted; give a number from 0.1")
    assert refused(MINERVA_MODEL_DIR="/m") == (
        "unknown environment variable MINERVA_MODEL_DIR; did you mean MINERVA_MODELS_DIR?"
    )


def test_variables_of_others_are_left_alone() -> None:
    load(environ={"MINERVA_LLAMA_CPP_DIR": "/opt", "MINERVA_DEBUG": "1", "MINERVA_PORT": ""})


def test_names_of_older_servers() -> None:
    environ = {"LLM_SERVER_PORT": "8000", "LLM_MODELS_DIR": "/models", "LLM_USE_GPU": "0"}
    settings = load(environ=environ)
    assert (settings.port, settings.models_dir, settings.n_gpu_layers) == (8000, Path("/models"), 0)
    assert load(environ={**environ, "MINERVA_PORT": "9"}).port == 9
    assert load(environ={"LLM_USE_GPU": "false"}).n_gpu_layers == 0
    assert load(environ={"LLM_USE_GPU": "1"}).n_gpu_layers is None
    assert load(environ={"LLM_USE_GPU": "0", "MINERVA_N_GPU_LAYERS": "7"}).n_gpu_layers == 7
    assert refused(LLM_USE_GPU="maybe") == "LLM_USE_GPU: 'maybe' is not accepted; give 0 or 1"
    assert refused(LLM_SERVER_PORT="x").startswith("LLM_SERVER_PORT: 'x' is not accepted")


def test_texts_of_flags_and_variables() -> None:
    settings = load(
        {"n_gpu_layers": "all", "kv_unified": False, "api_key": ["a", "b"], "aliases": ["gpt-4=qwen,mine"]},
        environ={"MINERVA_CORS_ORIGINS": "http://a, http://b", "MINERVA_MLOCK": "true", "MINERVA_THREADS": "auto"},
    )
    assert settings.n_gpu_layers == config.ALL_LAYERS
    assert settings.kv_unified is False
    assert settings.api_key == ["a", "b"]
    assert settings.aliases == {"gpt-4": "qwen", "mine": "default"}
    assert settings.cors_origins == ["http://a", "http://b"]
    assert settings.mlock is True
    assert settings.threads is None
    assert load({"flash_attn": "1"}, environ={}).flash_attn == "on"


def test_keys_are_never_in_a_message_or_a_repr(home: Path) -> None:
    file(home, {"api_key": ["s3cret", 5]})
    assert "s3cret" not in refused()
    assert "s3cret" not in repr(Settings(api_key=["s3cret"]))


def test_api_keys_plain_hashed_and_from_a_file(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"three").digest()
    keys = tmp_path / "keys"
    keys.write_text(f"# ours\ntwo\n\nsha256:{digest.hex()}\n")
    settings = load({"api_key": ["one"], "api_key_file": str(keys)}, environ={})
    assert settings.api_key_digests() == {hashlib.sha256(b"one").digest(), hashlib.sha256(b"two").digest(), digest}
    keys.write_text("# none yet\n")
    assert refused({"api_key_file": str(keys)}).endswith("holds no key")
    assert "No such file" in refused({"api_key_file": str(tmp_path / "gone")})
    assert "(hidden) is not accepted" in refused({"api_key": [""]})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_a_loopback_bind_needs_no_key(host: str) -> None:
    Settings(host=host).check_bind()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com"])
def test_an_open_bind_needs_a_key_or_a_word(host: str) -> None:
    with pytest.raises(ConfigError, match=f"--host {host}: others could use this server without a key; give --api-key"):
        Settings(host=host).check_bind()
    Settings(host=host, api_key=["k"]).check_bind()
    Settings(host=host, allow_open_bind=True).check_bind()


def test_engine_options(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    settings = load(
        {"ctx_size": "4096", "n_gpu_layers": "0", "chat_template_file": str(template), "queue_size": "9"}, environ={}
    )
    options = settings.engine_options(Path("/m.gguf"))
    assert (options.model, options.ctx_size, options.gpu_layers, options.queue_size) == ("/m.gguf", 4096, 0, 9)
    assert options.chat_template == "{{ messages }}"
    assert "exclude each other" in refused({"chat_template": "x", "chat_template_file": str(template)})
    assert "No such file" in refused({"chat_template_file": str(tmp_path / "gone")})


def test_every_field_has_help_and_a_flag() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert isinstance(field.json_schema_extra, dict)
        assert field.json_schema_extra["flags"], name


def test_choices_are_the_engines() -> None:
    assert set(typing.get_args(config.KVType)) == set(CACHE_TYPES)
    assert set(typing.get_args(Settings.model_fields["flash_attn"].annotation)) == set(FLASH_ATTENTION)
    assert set(typing.get_args(Settings.model_fields["rope_scaling"].annotation)) == set(ROPE_SCALING)
