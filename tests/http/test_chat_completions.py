"""Chat completions as the openai package sees them."""

from __future__ import annotations

from typing import Any

import aiohttp
import openai

HELLO: list[Any] = [{"role": "user", "content": "Hello, who are you?"}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 48}


def test_an_answer_has_text_usage_and_timings(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, **GREEDY)
    assert answer.object == "chat.completion"
    assert answer.model == model
    assert answer.system_fingerprint
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage is not None
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= 48
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details is not None
    timings = answer.model_dump()["timings"]
    assert timings["predicted_n"] == usage.completion_tokens
    assert timings["prompt_n"] + timings["cache_n"] == usage.prompt_tokens
    assert timings["predicted_per_second"] > 0


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=HELLO, **GREEDY)
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True, **GREEDY))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].model_dump()["timings"]["predicted_n"] == whole.usage.completion_tokens  # type: ignore[union-attr]


def test_usage_is_streamed_only_when_asked_for(client: openai.OpenAI, model: str) -> None:
    plain = list(client.chat.completions.create(model=model, messages=HELLO, stream=True, **GREEDY))
    assert all(chunk.usage is None for chunk in plain)
    asked = list(
        client.chat.completions.create(
            model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}, **GREEDY
        )
    )
    assert asked[-1].choices == []
    assert asked[-1].usage is not None
    assert asked[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in asked[:-1])


def test_each_of_n_choices_is_complete(client: openai.OpenAI, model: str) -> None:
    loose: Any = {"temperature": 2, "top_p": 1, "extra_body": {"min_p": 0, "top_k": 0}}
    answer = client.chat.completions.create(model=model, messages=HELLO, n=3, seed=7, max_tokens=24, **loose)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    alone = client.chat.completions.create(model=model, messages=HELLO, seed=7, max_tokens=24, **loose)
    assert alone.usage is not None
    assert answer.usage.prompt_tokens == alone.usage.prompt_tokens
    assert answer.usage.completion_tokens <= 3 * 24
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_n_choices_are_streamed_side_by_side(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(model=model, messages=HELLO, n=3, stream=True, max_tokens=24)
    roles: dict[int, int] = {}
    ends: dict[int, str] = {}
    for chunk in stream:
        for choice in chunk.choices:
            assert choice.index not in ends
            if choice.delta.role:
                roles[choice.index] = roles.get(choice.index, 0) + 1
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    assert roles == {0: 1, 1: 1, 2: 1}
    assert set(ends) == {0, 1, 2}


def test_more_choices_than_slots_all_arrive(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(model=model, messages=HELLO, n=9, stream=True, max_tokens=4)
    ended = {choice.index for chunk in stream for choice in chunk.choices if choice.finish_reason}
    assert ended == set(range(9))


def test_a_seed_gives_the_same_text_again(client: openai.OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "seed": 42, "temperature": 1.2, "max_tokens": 32}
    first = client.chat.completions.create(**asked)
    again = client.chat.completions.create(**asked)
    assert first.choices[0].message.content == again.choices[0].message.content


def test_a_stop_string_is_never_seen(client: openai.OpenAI, model: str) -> None:
    text = client.chat.completions.create(model=model, messages=HELLO, **GREEDY).choices[0].message.content
    assert text is not None
    for stop in {text[4:7], text[6:8], text[2:12], text[5]}:
        asked: dict[str, Any] = {"model": model, "messages": HELLO, "stop": ["never there", stop], **GREEDY}
        whole = client.chat.completions.create(**asked).choices[0]
        assert whole.message.content == text[: text.index(stop)]
        assert whole.finish_reason == "stop"
        chunks = list(client.chat.completions.create(stream=True, **asked))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content


def test_max_tokens_ends_with_length(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=500, max_completion_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_logprobs_tell_every_token(client: openai.OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "messages": HELLO, "logprobs": True, "top_logprobs": 3, **GREEDY}
    answer = client.chat.completions.create(**asked)
    choice = answer.choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    spelled = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
    assert spelled.startswith((choice.message.content or "").encode())
    for token in choice.logprobs.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].bytes == token.bytes
        values = [other.logprob for other in token.top_logprobs]
        assert values == sorted(values, reverse=True)
    streamed = [
        token
        for chunk in client.chat.completions.create(stream=True, **asked)
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content or []
    ]
    assert [token.token for token in streamed] == [token.token for token in choice.logprobs.content]


async def test_a_banned_token_does_not_come(http: aiohttp.ClientSession) -> None:
    async def first(bias: dict[str, float]) -> bytes:
        body = {"messages": HELLO, "temperature": 0, "max_tokens": 1, "logprobs": True, "logit_bias": bias}
        async with http.post("/v1/chat/completions", json=body) as response:
            assert response.status == 200
            answer = await response.json()
        return bytes(answer["choices"][0]["logprobs"]["content"][0]["bytes"])

    usual = await first({})
    async with http.post("/tokenize", json={"content": usual.decode(), "parse_special": False}) as response:
        (token,) = (await response.json())["tokens"]
    assert await first({str(token): -100}) != usual


def test_no_model_named_is_the_default_model(client: openai.OpenAI, model: str) -> None:
    assert client.chat.completions.create(model="", messages=HELLO, max_tokens=1).model == model


def test_content_parts_read_as_their_text(client: openai.OpenAI, model: str) -> None:
    parts: list[Any] = [{"role": "user", "content": [{"type": "text", "text": HELLO[0]["content"]}]}]
    whole = client.chat.completions.create(model=model, messages=HELLO, **GREEDY)
    assert client.chat.completions.create(model=model, messages=parts, **GREEDY).choices[0] == whole.choices[0]


def test_sixteen_at_once_are_all_answered(client: openai.OpenAI, model: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(i: int) -> str:
        stream = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": f"Hello number {i}"}], stream=True, max_tokens=16
        )
        return list(stream)[-1].choices[0].finish_reason or ""

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(16))) <= {"stop", "length"}
