"""pydantic's complaints, as one `RequestError` that names the field by its path in the body."""

from __future__ import annotations

import re
from typing import Any

import pydantic

from minerva.errors import RequestError

_DICTIONARY = re.compile(r"a valid dictionary( or instance of \w+)?")


def invalid(error: pydantic.ValidationError, document: Any) -> RequestError:
    """The deepest complaint is the one about what the caller meant; alternatives at one path are joined."""
    found: dict[tuple[str, ...], list[str]] = {}
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        path = _path(item["loc"], document, missing=item["type"] == "missing")
        found.setdefault(path, []).append(_wording(item["msg"]))
    path = max(found, key=len)
    param = ".".join(path)
    wording = " or ".join(dict.fromkeys(found[path])).replace(" or must be ", " or ")
    return RequestError(f"{param or 'The body'} {wording}", param=param or None)


def _path(loc: tuple[int | str, ...], document: Any, *, missing: bool) -> tuple[str, ...]:
    """`loc` without the names of union members, which are no part of the document."""
    path: list[str] = []
    for place, part in enumerate(loc):
        if _holds(document, part):
            document = document[part]
        elif not (missing and place == len(loc) - 1):
            continue
        path.append(str(part))
    return tuple(path)


def _holds(document: Any, part: int | str) -> bool:
    if isinstance(document, list):
        return isinstance(part, int) and part < len(document)
    return isinstance(document, dict) and part in document


def _wording(message: str) -> str:
    if message == "Field required":
        return "is required"
    message = _DICTIONARY.sub("an object", message.removeprefix("Value error, "))
    return message.replace("Input should be ", "must be ", 1).replace("List should ", "must ", 1)
