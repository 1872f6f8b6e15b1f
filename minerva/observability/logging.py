"""Log lines: one line each for people, or one JSON object each for machines. Keys never get into either."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TextIO

_BEARER = re.compile(r"(?i)(bearer\s+|x-api-key['\"]?\s*[:=]\s*['\"]?)[^\s'\",;]+")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(32), 127, 0x2028, 0x2029)}


def configure(level: str, *, as_json: bool, secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Send everything under `minerva` at `level` and above, and the warnings of libraries, to `stream` (stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json(secrets) if as_json else _Line(secrets))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("minerva").setLevel(level.upper())


class _Redacting(logging.Formatter):
    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._secrets = sorted(set(filter(None, secrets)), key=len, reverse=True)

    def redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _BEARER.sub(r"\1***", text)

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """What a caller gave as `extra`."""
        return {name: value for name, value in vars(record).items() if name not in _STANDARD}

    def failure(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""


class _Line(_Redacting):
    """12:34:56 INFO server: message key=value, and a traceback indented below it."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        name = record.name.removeprefix("minerva.")
        extra = "".join(f" {key}={value}" for key, value in self.fields(record).items())
        line = f"{time} {record.levelname} {name}: {record.getMessage()}{extra}".translate(_CONTROL)
        failure = self.failure(record).replace("\n", "\n    ")
        return self.redact(f"{line}\n    {failure}" if failure else line)


class _Json(_Redacting):
    """Keys: time (UTC, ISO 8601), level, logger, message, those of `extra`, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.redact(record.getMessage()),
        }
        for key, value in self.fields(record).items():
            line.setdefault(key, value if isinstance(value, int | float | None) else self.redact(str(value)))
        if failure := self.failure(record):
            line["exception"] = self.redact(failure)
        return json.dumps(line)
