from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minerva import __version__, cli
from minerva.config import Settings

from .models.gguf_bytes import write


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def minerva(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(argv))
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What `serve` would be started with."""
    started: list[Settings] = []
    monkeypatch.setattr("minerva.server.lifecycle.serve", started.append)
    return started


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert minerva("--version") == 0
    assert minerva("version") == 0
    assert capsys.readouterr().out == f"minerva {__version__}\n" * 2


def test_short_flags_are_llama_servers(served: list[Settings]) -> None:
    line = "-m m.gguf -c 4096 -np 4 -b 1024 -ub 256 -t 3 -tb 5 -ngl 0 -mg 1 -fa on -ctk q8_0 -ctv q8_0 -a gpt-4"
    assert minerva("serve", *line.split()) == 0
    (settings,) = served
    assert settings.model_dump(include=set(settings.sources)) == {
        "model": "m.gguf",
        "ctx_size": 4096,
        "parallel": 4,
        "batch_size": 1024,
        "ubatch_size": 256,
        "threads": 3,
        "threads_batch": 5,
        "n_gpu_layers": 0,
        "main_gpu": 1,
        "flash_attn": "on",
        "cache_type_k": "q8_0",
        "cache_type_v": "q8_0",
        "aliases": {"gpt-4": "default"},
    }


def test_long_flags(served: list[Settings]) -> None:
    line = (
        "--model x --models-dir /m --host ::1 --port 0 --ctx-size 0 --parallel 2 --gpu-layers all --kv-unified "
        "--no-mmap --mlock --chat-template T --alias a=b --alias c --api-key k1 --api-key k2 --log-level debug "
        "--log-json --max-models 3 --grace 1.5 --timeout 60 --allow-open "
        "--cors-origin http://a --allowed-host h"
    )
    assert minerva("serve", *line.split()) == 0
    (settings,) = served
    assert (settings.port, settings.ctx_size, settings.n_gpu_layers) == (0, 0, 9999)
    assert (settings.kv_unified, settings.mmap, settings.mlock) == (True, False, True)
    assert (settings.aliases, settings.api_key) == ({"a": "b", "c": "default"}, ["k1", "k2"])
    assert (settings.grace_s, settings.request_timeout_s, settings.allow_open_bind) == (1.5, 60, True)
    assert (settings.cors_origins, settings.allowed_hosts) == (["http://a"], ["h"])


def test_no_flags_are_the_defaults(served: list[Settings]) -> None:
    assert minerva("serve") == 0
    assert served == [Settings()]
    assert set(served[0].sources) == set()


def test_config_file_by_flag(served: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "my.json").write_text('{"port": 7}')
    assert minerva("serve", "--config", str(tmp_path / "my.json")) == 0
    assert served[0].port == 7


def test_verbose_says_where_settings_come_from(
    served: list[Settings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINERVA_CTX_SIZE", "512")
    assert minerva("serve", "-v", "--port", "9", "--api-key", "s3cret") == 0
    err = capsys.readouterr().err
    assert "port = 9  (--port)\n" in err
    assert "ctx_size = 512  (MINERVA_CTX_SIZE)\n" in err
    assert "s3cret" not in err
    assert served[0].log_level == "debug"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--port", "99999"], "--port: '99999' is not accepted; give a whole number from 0 to 65535"),
        (["-np", "0"], "--parallel: '0' is not accepted; give a whole number from 1 to 256 or auto"),
        (["-fa", "fast"], "--flash-attn: 'fast' is not accepted; give one of auto, on, off"),
        (["--config", "/gone.json"], "/gone.json: cannot be read: No such file or directory"),
        (["--prot", "1"], "No such option: --prot"),
        (["--port"], "requires an argument"),
        (["extra"], "unexpected extra argument"),
        (["-m", "/gone/model.gguf"], "--model /gone/model.gguf: no such file"),
        (["-m", "gone"], "--model gone: neither a file nor a known model; model 'gone' not found; known: "),
        (["--host", "0.0.0.0"], "others could use this server without a key; give --api-key"),
    ],
)
def test_wrong_calls_end_with_one_line_and_2(capsys: pytest.CaptureFixture[str], argv: list[str], message: str) -> None:
    assert minerva("serve", *argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("minerva: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_model_that_is_not_one_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = write(tmp_path / "bad.gguf", b"junk")
    assert minerva("serve", "-m", str(bad)) == 1
    assert capsys.readouterr().err == "minerva: bad.gguf: not a GGUF file: it begins with b'junk', not b'GGUF'\n"


def test_python_m_minerva_serve() -> None:
    command = [sys.executable, "-m", "minerva.serve", "--port", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "minerva: --port: 'x' is not accepted; give a whole number from 0 to 65535\n"


def test_help_names_every_setting_and_gives_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert minerva("serve", "--help") == 0
    out = capsys.readouterr().out
    for panel in ("Model", "Engine", "Server", "Access", "Logging"):
        assert f" {panel} " in out
    for flag in ("--n-gpu-layers", "-np", "--api-key-file", "Example:", "MINERVA_CTX_SIZE"):
        assert flag in out


def test_list(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "models"
    write(folder / "a-very-long-name" / ("x" * 100 + ".gguf"))
    write(folder / "bad.gguf", b"junk")
    assert minerva("list", "--models-dir", str(folder), "-a", "gpt-4") == 0
    out, err = capsys.readouterr()
    assert "a-very-long-name/" + "x" * 100 in out
    for text in ("llama", "Q4_K_M", "256", "gpt-4"):
        assert text in out
    assert f"skipped {folder / 'bad.gguf'}: not a GGUF file" in err


def test_devices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [{"name": "CPU", "description": "A CPU", "kind": "cpu", "memory_total": 2**34, "memory_free": 2**33}]
    answer: Any = SimpleNamespace(returncode=0, stdout=json.dumps(found), stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
    assert minerva("devices") == 0
    out = capsys.readouterr().out
    assert "A CPU" in out
    assert "17.2 GB" in out
    answer.returncode, answer.stderr = 1, "noise\nno module\n"
    assert minerva("devices") == 1
    assert capsys.readouterr().err == "minerva: the devices could not be listed: no module\n"


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert minerva() == 2
    out, err = capsys.readouterr()
    assert "serve" in out + err
    assert "minerva:" not in err
