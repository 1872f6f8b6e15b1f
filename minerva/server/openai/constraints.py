"""What the output must look like: a JSON schema, a regex, a choice or a grammar, never two of them."""

from __future__ import annotations

import json
from typing import Any

from minerva.errors import RequestError
from minerva.server.openai.schemas import ChatRequest, ResponseFormat, SamplingBody
from minerva.worker.protocol import Constraint

ANY_OBJECT = {"type": "object"}


def json_text(value: Any, param: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise RequestError(f"{param} holds a number that JSON cannot", param=param) from None


def constraint(body: SamplingBody) -> Constraint | None:
    """Raises `RequestError` where a request asks for two."""
    found: list[tuple[str, Constraint]] = []
    if isinstance(body, ChatRequest) and body.response_format is not None and body.response_format.type != "text":
        schema = json_text(_of_format(body.response_format), "response_format")
        found.append(("response_format", Constraint("json_schema", schema)))
    if body.json_schema is not None:
        found.append(
            ("json_schema", Constraint("json_schema", json_text(body.json_schema or ANY_OBJECT, "json_schema")))
        )
    if body.grammar:
        found.append(("grammar", Constraint("grammar", body.grammar)))
    if body.guided_regex is not None:
        found.append(("guided_regex", Constraint("regex", body.guided_regex)))
    if body.guided_choice is not None:
        found.append(("guided_choice", Constraint("choice", json_text(body.guided_choice, "guided_choice"))))
    if len(found) > 1:
        raise RequestError(f"{found[0][0]} and {found[1][0]} cannot both be given", param=found[1][0])
    return found[0][1] if found else None


def _of_format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.type == "json_object":
        return wanted.schema_ or ANY_OBJECT
    if wanted.json_schema is None:
        raise RequestError("response_format.json_schema is required", param="response_format.json_schema")
    return wanted.json_schema.schema_ or ANY_OBJECT
