"""Text completions: the shapes of a prompt, echo, and the older shape of log-probabilities."""

from __future__ import annotations

from typing import Any

import aiohttp
import openai
import pytest

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 16}


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, model: str) -> None:
    whole = client.completions.create(model=model, prompt="Minerva is", **GREEDY)
    assert whole.object == "text_completion"
    chunks = list(client.completions.create(model=model, prompt="Minerva is", stream=True, **GREEDY))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_each_prompt_gets_its_choices(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt=["Hello", "Minerva is"], n=2, **GREEDY)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text == answer.choices[1].text
    alone = [client.completions.create(model=model, prompt=prompt, **GREEDY) for prompt in ("Hello", "Minerva is")]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone if one.usage)


async def test_tokens_are_a_prompt_too(http: aiohttp.ClientSession, client: openai.OpenAI, model: str) -> None:
    async with http.post("/tokenize", json={"content": "Minerva is", "add_special": True}) as response:
        tokens = (await response.json())["tokens"]
    text = client.completions.create(model=model, prompt="Minerva is", **GREEDY).choices[0].text
    assert client.completions.create(model=model, prompt=tokens, **GREEDY).choices[0].text == text
    assert client.completions.create(model=model, prompt=[tokens, tokens], **GREEDY).choices[1].text == text


@pytest.mark.parametrize("stream", [False, True])
def test_echo_puts_the_prompt_first(client: openai.OpenAI, model: str, stream: bool) -> None:
    plain = client.completions.create(model=model, prompt="Minerva is", **GREEDY).choices[0].text
    answer: Any = client.completions.create(model=model, prompt="Minerva is", echo=True, stream=stream, **GREEDY)
    text = "".join(chunk.choices[0].text for chunk in answer) if stream else answer.choices[0].text
    assert text == "Minerva is" + plain


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_have_the_older_shape(client: openai.OpenAI, model: str, stream: bool) -> None:
    answer: Any = client.completions.create(model=model, prompt="Minerva is", logprobs=2, stream=stream, **GREEDY)
    found = [chunk.choices[0].logprobs for chunk in answer] if stream else [answer.choices[0].logprobs]
    tokens = [token for one in found if one for token in one.tokens]
    offsets = [offset for one in found if one for offset in one.text_offset]
    assert tokens
    assert offsets == [len("".join(tokens[:i])) for i in range(len(tokens))]
    for one in filter(None, found):
        assert all(value <= 0 for value in one.token_logprobs)
        assert all(1 <= len(top) <= 2 for top in one.top_logprobs)


def test_best_of_is_refused_unless_it_is_n(client: openai.OpenAI, model: str) -> None:
    assert client.completions.create(model=model, prompt="Hello", n=2, best_of=2, **GREEDY).choices
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=model, prompt="Hello", best_of=3, **GREEDY)
    assert refused.value.code == "unsupported"
    assert refused.value.param == "best_of"
