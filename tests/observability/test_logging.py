from __future__ import annotations

import io
import json
import logging

import pytest

from minerva.observability.logging import configure

LOGGER = logging.getLogger("minerva.server")


def logged(*, as_json: bool, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure(level, as_json=as_json, secrets=["s3cret", ""], stream=stream)
    return stream


@pytest.fixture(autouse=True)
def _restore() -> object:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def test_a_line_for_people() -> None:
    stream = logged(as_json=False)
    LOGGER.info("loaded %s", "qwen", extra={"seconds": 1.5})
    assert stream.getvalue()[8:] == " INFO server: loaded qwen seconds=1.5\n"


def test_a_line_for_machines() -> None:
    stream = logged(as_json=True)
    LOGGER.warning("loaded %s", "qwen", extra={"seconds": 1.5})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "warning", "logger": "minerva.server", "message": "loaded qwen", "seconds": 1.5}


@pytest.mark.parametrize("as_json", [False, True])
def test_keys_are_never_logged(as_json: bool) -> None:
    stream = logged(as_json=as_json)
    LOGGER.info("headers %s", {"Authorization": "Bearer abc123"}, extra={"given": "s3cret"})
    try:
        raise ValueError("bad key s3cret")
    except ValueError:
        LOGGER.exception("x-api-key: abc123")
    assert "abc123" not in stream.getvalue()
    assert "s3cret" not in stream.getvalue()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_message_cannot_forge_a_line(as_json: bool) -> None:
    stream = logged(as_json=as_json)
    LOGGER.info("path /\r\n12:00:00 ERROR server: \x1b[31mforged")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_levels() -> None:
    stream = logged(as_json=False)
    LOGGER.debug("detail")
    logging.getLogger("aiohttp").info("chatter")
    assert stream.getvalue() == ""
    stream = logged(as_json=False, level="debug")
    LOGGER.debug("detail")
    logging.getLogger("aiohttp").debug("chatter")
    assert "detail" in stream.getvalue()
    assert "chatter" not in stream.getvalue()
