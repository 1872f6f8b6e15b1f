"""The fields around every answer and every chunk."""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec

from minerva import __version__
from minerva.errors import MinervaError
from minerva.server import sse
from minerva.server.openai.errors import openai_error

FINGERPRINT = f"minerva-{__version__}"
DONE = b"data: [DONE]\n\n"


def envelope(id_prefix: str, kind: str, model: str) -> dict[str, Any]:
    return {
        "id": f"{id_prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
    }


def chunk_head(shared: dict[str, Any], index: int) -> bytes:
    """A chunk as far as its choice's index: what every chunk of one choice begins with."""
    return b"data: " + msgspec.json.encode(shared)[:-1] + b',"choices":[{"index":%d,' % index


def failure(error: MinervaError) -> bytes:
    """The event that the openai package raises APIError for; no [DONE] follows."""
    return sse.event(openai_error(error))
