"""Bad input: each gets a clear error in OpenAI's shape, and the server serves the next request."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import openai
import pytest
from raw_http import exchange, post
from served import Server

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(autouse=True)
async def next_request_is_served(http: aiohttp.ClientSession) -> Any:
    yield
    async with http.post(CHAT, json={"messages": HELLO, "max_tokens": 1}) as response:
        assert response.status == 200


NOT_JSON = {
    "nothing": b"",
    "cut off": b'{"messages": [',
    "trailing text": b'{"messages": []} x',
    "invalid UTF-8": b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "lone surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "NaN": b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    "too deep": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"metadata": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    "a number too long": b'{"seed": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_what_is_not_json_is_refused(server: Server, body: bytes) -> None:
    answer = await exchange(server.url, post(CHAT, body))
    assert answer.status == 400
    assert "JSON" in answer.error()["message"]
    assert answer.error()["type"] == "invalid_request_error"


WRONG: dict[str, tuple[Any, str | None]] = {
    "not an object": ([1, 2], None),
    "no messages": ({}, "messages"),
    "empty messages": ({"messages": []}, "messages"),
    "messages as text": ({"messages": "Hello"}, "messages"),
    "message as text": ({"messages": ["Hello"]}, "messages.0"),
    "unknown role": ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
    "no content": ({"messages": [{"role": "user"}]}, "messages.0.content"),
    "content as number": ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    "text part as number": (
        {"messages": [*HELLO, {"role": "user", "content": [{"type": "text", "text": 5}]}]},
        "messages.1.content.0.text",
    ),
    "text part without text": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages.0.content.0.text",
    ),
    "tool answer to nothing": ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
    "max_tokens as text": ({"messages": HELLO, "max_tokens": "5"}, "max_tokens"),
    "max_tokens as boolean": ({"messages": HELLO, "max_tokens": True}, "max_tokens"),
    "max_tokens as fraction": ({"messages": HELLO, "max_tokens": 1.5}, "max_tokens"),
    "negative max_tokens": ({"messages": HELLO, "max_tokens": -1}, "max_tokens"),
    "max_completion_tokens 0": ({"messages": HELLO, "max_completion_tokens": 0}, "max_completion_tokens"),
    "absurd max_tokens": ({"messages": HELLO, "max_tokens": 10**30}, "max_tokens"),
    "negative temperature": ({"messages": HELLO, "temperature": -0.1}, "temperature"),
    "infinite temperature": ({"messages": HELLO, "temperature": 10**400}, "temperature"),
    "temperature as text": ({"messages": HELLO, "temperature": "hot"}, "temperature"),
    "top_p beyond 1": ({"messages": HELLO, "top_p": 1.1}, "top_p"),
    "negative top_k": ({"messages": HELLO, "top_k": -40}, "top_k"),
    "absurd seed": ({"messages": HELLO, "seed": 2**70}, "seed"),
    "n of 0": ({"messages": HELLO, "n": 0}, "n"),
    "absurd n": ({"messages": HELLO, "n": 10**6}, "n"),
    "stop as number": ({"messages": HELLO, "stop": 5}, "stop"),
    "stop with a number": ({"messages": HELLO, "stop": ["a", 5]}, "stop.1"),
    "too many stops": ({"messages": HELLO, "stop": ["x"] * 1000}, "stop"),
    "endless stop": ({"messages": HELLO, "stop": "x" * 10_000}, "stop"),
    "logit_bias of a word": ({"messages": HELLO, "logit_bias": {"hello": 1}}, "logit_bias"),
    "logit_bias as text": ({"messages": HELLO, "logit_bias": {"5": "1"}}, "logit_bias.5"),
    "top_logprobs alone": ({"messages": HELLO, "top_logprobs": 3}, "top_logprobs"),
    "too many top_logprobs": ({"messages": HELLO, "logprobs": True, "top_logprobs": 99}, "top_logprobs"),
    "stream as text": ({"messages": HELLO, "stream": "true"}, "stream"),
    "unknown response format": ({"messages": HELLO, "response_format": {"type": "xml"}}, "response_format.type"),
    "schema without schema": (
        {"messages": HELLO, "response_format": {"type": "json_schema"}},
        "response_format.json_schema",
    ),
    "schema and grammar": ({"messages": HELLO, "json_schema": {}, "grammar": 'root ::= "a"'}, "grammar"),
    "tool without a name": (
        {"messages": HELLO, "tools": [{"type": "function", "function": {}}]},
        "tools.0.function.name",
    ),
    "required without tools": ({"messages": HELLO, "tool_choice": "required"}, "tool_choice"),
    "unknown tool chosen": (
        {
            "messages": HELLO,
            "tools": [{"type": "function", "function": {"name": "a"}}],
            "tool_choice": {"type": "function", "function": {"name": "b"}},
        },
        "tool_choice",
    ),
}


@pytest.mark.parametrize(("body", "param"), WRONG.values(), ids=WRONG.keys())
async def test_the_wrong_field_is_named(http: aiohttp.ClientSession, body: Any, param: str | None) -> None:
    async with http.post(CHAT, json=body) as response:
        error = (await response.json())["error"]
    assert response.status == 400
    assert error["param"] == param
    assert (param or "object") in error["message"]
    assert len(error["message"]) < 600


UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        "messages.0.content.0",
    ),
    "audio": (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        "messages.0.content.0",
    ),
    "spoken answer": ({"messages": HELLO, "modalities": ["text", "audio"], "audio": {"voice": "x"}}, "audio"),
    "old functions": ({"messages": HELLO, "functions": [{"name": "f"}]}, "functions"),
    "custom tool": ({"messages": HELLO, "tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type"),
}


@pytest.mark.parametrize(("body", "param"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
async def test_what_cannot_be_done_is_refused_not_ignored(
    http: aiohttp.ClientSession, body: dict[str, Any], param: str
) -> None:
    async with http.post(CHAT, json=body) as response:
        error = (await response.json())["error"]
    assert response.status == 400
    assert error["code"] == "unsupported"
    assert error["param"] == param


async def test_unknown_fields_and_nulls_are_ignored(http: aiohttp.ClientSession) -> None:
    body = {"messages": HELLO, "max_tokens": 1, "someone_elses_field": {"a": [1]}, "temperature": None, "stop": None}
    async with http.post(CHAT, json={**body, "tools": [], "user": "me", "metadata": {"a": "b"}}) as response:
        assert response.status == 200


def test_a_prompt_longer_than_the_context_is_told_with_both_counts(client: openai.OpenAI, model: str) -> None:
    words = " ".join(f"word{i}" for i in range(4000))
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": words}], stream=stream)
        assert refused.value.code == "context_length_exceeded"
        assert "2048" in refused.value.message
        assert sum(part.strip(".,").isdigit() for part in refused.value.message.split()) >= 2


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/tokenize"])
async def test_ten_megabytes_of_text_are_answered(http: aiohttp.ClientSession, path: str) -> None:
    text = "Minerva " * (10 * 1024 * 1024 // 8)
    bodies = {CHAT: {"messages": [{"role": "user", "content": text}]}, "/tokenize": {"content": text}}
    async with http.post(path, json=bodies.get(path, {"prompt": text})) as response:
        answer = await response.json()
    if path == "/tokenize":
        assert response.status in (200, 400)
    else:
        assert response.status == 400
        assert answer["error"]["code"] == "context_length_exceeded"


COMPLETIONS: dict[str, tuple[Any, str]] = {
    "no prompt": ({}, "prompt"),
    "empty list": ({"prompt": []}, "prompt"),
    "empty tokens": ({"prompt": [[]]}, "prompt"),
    "mixed list": ({"prompt": ["a", 1]}, "prompt.1"),
    "negative token": ({"prompt": [1, -2]}, "prompt.1"),
    "prompt as number": ({"prompt": 5}, "prompt"),
    "boolean tokens": ({"prompt": [True]}, "prompt.0"),
    "suffix of tokens": ({"prompt": [1], "suffix": "x"}, "suffix"),
    "too many prompts": ({"prompt": ["x"] * 1000}, "prompt"),
}


@pytest.mark.parametrize(("body", "param"), COMPLETIONS.values(), ids=COMPLETIONS.keys())
async def test_a_wrong_completion_prompt_is_named(http: aiohttp.ClientSession, body: Any, param: str) -> None:
    async with http.post("/v1/completions", json=body) as response:
        error = (await response.json())["error"]
    assert response.status == 400
    assert error["param"] == param


async def test_token_ids_beyond_the_vocabulary_are_refused(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/completions", json={"prompt": [2**31 - 1], "max_tokens": 1}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["message"]
    async with http.post("/detokenize", json={"tokens": [2**31 - 1]}) as response:
        assert response.status == 400


async def test_a_schema_that_is_no_schema_is_refused(http: aiohttp.ClientSession) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}, "required": ["a"]}
    body = {
        "messages": HELLO,
        "max_tokens": 4,
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
    }
    async with http.post(CHAT, json=body) as response:
        assert response.status == 400
        assert json.loads(await response.text())["error"]["message"]
