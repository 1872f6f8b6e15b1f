"""Answers held to a format, over HTTP: what comes is what was asked for, and what cannot be enforced is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest

HELLO: list[Any] = [{"role": "user", "content": "Give me data."}]
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["kind", "age"],
    "additionalProperties": False,
}


def answer(client: openai.OpenAI, model: str, **kwargs: Any) -> str:
    done = client.chat.completions.create(model=model, messages=HELLO, max_tokens=200, **kwargs)
    assert done.choices[0].finish_reason == "stop"
    return done.choices[0].message.content or ""


@pytest.mark.parametrize("temperature", [0, 2])
def test_a_schema_holds_at_any_temperature(client: openai.OpenAI, model: str, temperature: float) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA, "strict": True}}
    pet = json.loads(answer(client, model, response_format=wanted, temperature=temperature))
    assert set(pet) == {"kind", "age"}
    assert pet["kind"] in ("cat", "dog")
    assert 0 <= pet["age"] <= 99


def test_a_streamed_answer_is_held_to_its_schema_too(client: openai.OpenAI, model: str) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "pet", "schema": SCHEMA}}
    stream = client.chat.completions.create(model=model, messages=HELLO, response_format=wanted, stream=True)
    assert set(json.loads("".join(c.choices[0].delta.content or "" for c in stream))) == {"kind", "age"}


def test_a_regex_holds(client: openai.OpenAI, model: str) -> None:
    text = answer(client, model, extra_body={"guided_regex": "[0-9]{4}-[0-9]{2}"})
    assert re.fullmatch("[0-9]{4}-[0-9]{2}", text)


def test_a_choice_holds(client: openai.OpenAI, model: str) -> None:
    assert answer(client, model, extra_body={"guided_choice": ["maybe so", "rather not"]}) in ("maybe so", "rather not")


def test_a_grammar_holds(client: openai.OpenAI, model: str) -> None:
    text = answer(client, model, extra_body={"grammar": 'root ::= "<" [a-c] [a-c] ">"'})
    assert re.fullmatch("<[a-c][a-c]>", text)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"json_schema": {"type": "object", "not": {}}}, "not"),
        ({"json_schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"json_schema": {"type": "nonsense"}}, "nonsense"),
        ({"guided_regex": "a("}, "unclosed group"),
        ({"guided_regex": "(?=a)b"}, "look-around"),
        ({"grammar": "root ::= ("}, "grammar"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(
    client: openai.OpenAI, model: str, asked: dict[str, Any], named: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        answer(client, model, extra_body=asked)
    assert named in str(refused.value)


def test_a_schema_as_deep_as_the_sea_is_refused(client: openai.OpenAI, model: str) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(80):
        schema = {"type": "array", "items": schema}
    with pytest.raises(openai.BadRequestError, match="deeper"):
        answer(client, model, extra_body={"json_schema": schema})
