"""What a chat request becomes, without a server."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minerva.errors import RequestError
from minerva.server.body import parse
from minerva.server.openai.completion_prompts import completion_prompts
from minerva.server.openai.prompts import chat_prompt
from minerva.server.openai.sampling import chat_sampling, choices, completion_sampling
from minerva.server.openai.schemas import ChatRequest, CompletionRequest
from minerva.worker.protocol import ChatPrompt, Constraint, TextPrompt, TokenPrompt

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "maximum": 10**30}}}
TIME = {"type": "function", "function": {"name": "time", "description": "now", "strict": True}}

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def request(**fields: Any) -> ChatRequest:
    return parse(json.dumps({"messages": HELLO, **fields}).encode(), ChatRequest)


def prompt(**fields: Any) -> ChatPrompt:
    return chat_prompt(request(**fields))


def test_max_completion_tokens_wins() -> None:
    assert chat_sampling(request(max_tokens=5, max_completion_tokens=7)).max_tokens == 7
    assert chat_sampling(request(max_tokens=5)).max_tokens == 5


def test_sampling_fields_arrive() -> None:
    sampling = chat_sampling(
        request(temperature=0, top_p=0.5, top_k=7, min_p=0, seed=3, stop="x", logit_bias={"5": -100}, ignore_eos=True)
    )
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.0, 0.5, 7, 0.0)
    assert (sampling.seed, sampling.stop, sampling.logit_bias, sampling.ignore_eos) == (3, ("x",), {5: -100.0}, True)
    assert chat_sampling(request(seed=-1)).seed is None
    assert chat_sampling(request(logprobs=True)).top_logprobs == 0
    assert chat_sampling(request(logprobs=False)).top_logprobs is None


def test_every_choice_has_its_own_seed() -> None:
    assert [one.seed for one in choices(chat_sampling(request(seed=2**64 - 1)), 3)] == [2**64 - 1, 0, 1]
    assert [one.seed for one in choices(chat_sampling(request()), 2)] == [None, None]


def test_developer_is_system_and_parts_are_kept() -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "time", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]  # fmt: skip
    sent = json.loads(prompt(messages=messages).messages)
    assert sent[0] == {"role": "system", "content": messages[0]["content"]}
    assert sent[1]["reasoning_content"] == "hm"
    assert sent[1]["tool_calls"][0]["function"] == {"name": "time", "arguments": "{}"}
    assert sent[2] == {"role": "tool", "content": "noon", "tool_call_id": "c1"}


def test_one_function_chosen_is_that_one_alone() -> None:
    chosen = prompt(tools=[WEATHER, TIME], tool_choice={"type": "function", "function": {"name": "weather"}})
    assert chosen.tool_choice == "required"
    assert json.loads(chosen.tools or "") == [WEATHER]
    both = prompt(tools=[WEATHER, TIME], tool_choice="none", parallel_tool_calls=False)
    assert both.tool_choice == "none"
    assert not both.parallel_tool_calls
    assert len(json.loads(both.tools or "")) == 2


def test_formats_become_constraints() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = prompt(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert wanted.constraint is not None
    assert json.loads(wanted.constraint.source) == schema
    assert prompt(response_format={"type": "json_object"}).constraint == Constraint("json_schema", '{"type": "object"}')
    assert prompt(response_format={"type": "text"}).constraint is None
    assert prompt(grammar='root ::= "a"').constraint == Constraint("grammar", 'root ::= "a"')
    assert prompt(guided_regex="[0-9]+").constraint == Constraint("regex", "[0-9]+")
    assert prompt(guided_choice=["a", "b"]).constraint == Constraint("choice", '["a", "b"]')


def test_two_formats_are_one_too_many() -> None:
    with pytest.raises(RequestError) as refused:
        prompt(guided_regex="a", guided_choice=["a"])
    assert refused.value.param == "guided_choice"


def test_thinking_is_steered() -> None:
    assert not prompt(reasoning_effort="none").enable_thinking
    assert prompt(reasoning_effort="high").template_kwargs == {"reasoning_effort": '"high"'}
    assert not prompt(chat_template_kwargs={"enable_thinking": False}).enable_thinking
    with pytest.raises(RequestError) as refused:
        prompt(chat_template_kwargs={"enable_thinking": "no"})
    assert refused.value.param == "chat_template_kwargs.enable_thinking"


def test_prompts_of_completions() -> None:
    def prompts(**fields: Any) -> list[TextPrompt | TokenPrompt]:
        return completion_prompts(parse(json.dumps(fields).encode(), CompletionRequest))

    assert prompts(prompt="a", suffix="b") == [TextPrompt(text="a", suffix="b")]
    assert prompts(prompt=["a", "b"]) == [TextPrompt(text="a"), TextPrompt(text="b")]
    assert prompts(prompt=[1, 2]) == [TokenPrompt(tokens=[1, 2])]
    assert prompts(prompt=[[1], [2]]) == [TokenPrompt(tokens=[1]), TokenPrompt(tokens=[2])]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
FIELDS = [*sorted(ChatRequest.model_fields), "schema"]


def offered(body: bytes) -> None:
    """Anything at all is either understood or refused; nothing else is raised."""
    with suppress(RequestError):
        chat = parse(body, ChatRequest)
        chat_prompt(chat)
        chat_sampling(chat)
    with suppress(RequestError):
        completion = parse(body, CompletionRequest)
        completion_prompts(completion)
        completion_sampling(completion)


@unhurried
@given(st.binary(max_size=200))
def test_any_bytes_are_understood_or_refused(body: bytes) -> None:
    offered(body)


@unhurried
@given(st.dictionaries(st.sampled_from([*FIELDS, "prompt", "suffix"]), json_values, max_size=6))
def test_any_json_is_understood_or_refused(fields: dict[str, Any]) -> None:
    offered(json.dumps({"messages": HELLO, "prompt": "x", **fields}).encode())


@unhurried
@given(st.lists(st.dictionaries(st.sampled_from(["role", "content", "tool_calls", "name", "text"]), json_values)))
def test_any_messages_are_understood_or_refused(messages: list[dict[str, Any]]) -> None:
    offered(json.dumps({"messages": messages}).encode())


@unhurried
@given(st.text())
def test_text_arrives_as_it_was_sent(text: str) -> None:
    try:
        sent = prompt(messages=[{"role": "user", "content": text}])
    except RequestError:
        assert any(0xD800 <= ord(character) <= 0xDFFF for character in text)
    else:
        assert json.loads(sent.messages)[0]["content"] == text
