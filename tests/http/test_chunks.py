"""Server-sent chunks, without a server: what a client's parser would make of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minerva.server.openai.chat_chunks import ChatChunks, ending
from minerva.server.openai.completion_chunks import CompletionChunks
from minerva.server.openai.envelope import envelope
from minerva.worker.protocol import Delta, Event, Finished, Started, TokenLogprob, ToolCallDelta

SHARED = envelope("chatcmpl", "chat.completion.chunk", "org/model")
END = Finished(1, "stop", 7, 2, 3, None, 0.0, 0.5, 0.25)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def chunks(data: bytes) -> list[dict[str, Any]]:
    """Split as the strictest and the laxest readers of lines do."""
    lines = [line for line in data.decode().splitlines() if line]
    assert lines == [line.decode() for line in data.split(b"\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def chat(*events: Event, index: int = 0) -> list[dict[str, Any]]:
    return chunks(ChatChunks(SHARED, index, with_timings=True).encode(list(events)))


@unhurried
@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_survives(text: str) -> None:
    (chunk,) = chat(Delta(1, text))
    assert chunk["choices"][0]["delta"] == {"content": text}
    (chunk,) = chunks(CompletionChunks(SHARED, 0, echo="", with_timings=False).encode([Delta(1, text)]))
    assert chunk["choices"][0]["text"] == text


def test_separators_of_unicode_do_not_end_a_line() -> None:
    assert chat(Delta(1, "a\u2028b\u2029c\x85d"))[0]["choices"][0]["delta"]["content"] == "a\u2028b\u2029c\x85d"


def test_a_choice_begins_with_its_role_and_ends_with_its_reason() -> None:
    first, second, last = chat(Started(1, 7, 2), Delta(1, "Hi"), END, index=3)
    assert first["choices"] == [{"index": 3, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
    assert second["choices"] == [{"index": 3, "delta": {"content": "Hi"}, "finish_reason": None}]
    assert last["choices"] == [{"index": 3, "delta": {}, "finish_reason": "stop"}]
    assert {chunk["object"] for chunk in (first, second, last)} == {"chat.completion.chunk"}
    assert last["timings"]["prompt_n"] == 5
    assert last["timings"]["predicted_per_second"] == 12.0


def test_the_first_piece_of_a_call_has_id_and_name_and_later_ones_only_arguments() -> None:
    got = chat(
        Delta(1, tool_calls=[ToolCallDelta(0, "c0", "weather", "")]),
        Delta(1, tool_calls=[ToolCallDelta(0, "", "", '{"city"'), ToolCallDelta(0, "", "", ':"Oslo"}')]),
        Delta(1, tool_calls=[ToolCallDelta(1, "c1", "time", "{}")]),
    )
    calls = [call for chunk in got for call in chunk["choices"][0]["delta"]["tool_calls"]]
    assert calls == [
        {"index": 0, "id": "c0", "type": "function", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"city"'}},
        {"index": 0, "function": {"arguments": ':"Oslo"}'}},
        {"index": 1, "id": "c1", "type": "function", "function": {"name": "time", "arguments": "{}"}},
    ]


def test_reasoning_comes_apart_from_content() -> None:
    first, second = (chunk["choices"][0]["delta"] for chunk in chat(Delta(1, "Yes", reasoning="hm")))
    assert (first, second) == ({"reasoning_content": "hm"}, {"content": "Yes"})


def test_logprobs_come_once_even_with_text_held_back() -> None:
    token = TokenLogprob("\ufffd", b"\xf0", 5, float("-inf"), [])
    (chunk,) = chat(Delta(1, "", logprobs=[token]))
    (found,) = chunk["choices"][0]["logprobs"]["content"]
    assert found["bytes"] == [0xF0]
    assert found["logprob"] < -1e6
    with_both = chat(Delta(1, "b", reasoning="a", logprobs=[token]))
    assert ["logprobs" in chunk["choices"][0] for chunk in with_both] == [True, False]


def test_usage_counts_the_prompt_once() -> None:
    encoders = [ChatChunks(SHARED, index, with_timings=False) for index in range(2)]
    for encoder in encoders:
        encoder.encode([END])
    data, done, _ = ending(SHARED, encoders, with_usage=True).split(b"\n\n")
    assert done == b"data: [DONE]"
    last = json.loads(data.removeprefix(b"data: "))
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 6,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
