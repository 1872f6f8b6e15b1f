"""The four shapes of a completion's prompt: text, texts, tokens, lists of tokens."""

from __future__ import annotations

from typing import Any, cast

from minerva.errors import RequestError
from minerva.server.openai.constraints import constraint
from minerva.server.openai.schemas import MAX_CHOICES, CompletionRequest
from minerva.worker.protocol import Constraint, TextPrompt, TokenPrompt


def completion_prompts(body: CompletionRequest) -> list[TextPrompt | TokenPrompt]:
    given = _as_list(body.prompt)
    if not given or [] in given:
        raise RequestError("prompt must not be empty", param="prompt")
    if len(given) * (body.n or 1) > MAX_CHOICES:
        raise RequestError(f"prompts times n must be {MAX_CHOICES} at most", param="prompt")
    wanted = constraint(body)
    return [_prompt(prompt, body.suffix, wanted) for prompt in given]


def _as_list(prompt: str | list[Any]) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [prompt]
    return cast("list[str | list[int]]", prompt)


def _prompt(prompt: str | list[int], suffix: str | None, wanted: Constraint | None) -> TextPrompt | TokenPrompt:
    if isinstance(prompt, str):
        return TextPrompt(text=prompt, suffix=suffix, constraint=wanted)
    if suffix is not None:
        raise RequestError("suffix needs a prompt of text, not of tokens", param="suffix")
    return TokenPrompt(tokens=prompt, constraint=wanted)
