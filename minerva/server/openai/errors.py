"""OpenAI's error shape."""

from __future__ import annotations

from typing import Any

from minerva.errors import MinervaError


def openai_error(error: MinervaError) -> dict[str, Any]:
    return {"error": {"message": error.message, "type": error.openai_type, "param": error.param, "code": error.code}}
