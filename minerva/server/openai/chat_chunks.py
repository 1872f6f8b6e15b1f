"""One choice's events → `chat.completion.chunk`s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from minerva.server import sse
from minerva.server.openai.envelope import DONE, chunk_head
from minerva.server.openai.logprobs import chat_logprobs
from minerva.server.openai.usage import timings, usage
from minerva.server.transcript import Output
from minerva.worker.protocol import Delta, Finished, Started, ToolCallDelta

TEXT_TAIL = b'},"finish_reason":null}]}\n\n'
ROLE = {"role": "assistant", "content": ""}


class ChatChunks:
    """Plain text, nearly every event there is, costs one JSON string between two constants."""

    def __init__(self, shared: dict[str, Any], index: int, *, with_timings: bool) -> None:
        self._head = chunk_head(shared, index)
        self._text_head = self._head + b'"delta":{"content":'
        self._with_timings = with_timings
        self._named: set[int] = set()
        self.finished: Finished | None = None

    def encode(self, batch: list[Output]) -> bytes:
        out: list[bytes] = []
        for event in batch:
            if isinstance(event, Delta):
                if event.reasoning or event.tool_calls or event.logprobs:
                    out += self._chunks(event)
                elif event.text:
                    out += (self._text_head, sse.json_string(event.text), TEXT_TAIL)
            elif isinstance(event, Started):
                out.append(self._head + b'"delta":' + msgspec.json.encode(ROLE) + b',"finish_reason":null}]}\n\n')
            elif isinstance(event, Finished):
                self.finished = event
                out.append(self._finish(event))
        return b"".join(out)

    def _chunks(self, event: Delta) -> list[bytes]:
        """One thing a chunk; log-probabilities go with the first."""
        deltas: list[dict[str, Any]] = []
        if event.reasoning:
            deltas.append({"reasoning_content": event.reasoning})
        if event.text or not (event.reasoning or event.tool_calls):
            deltas.append({"content": event.text})
        deltas += [{"tool_calls": [self._call(call)]} for call in event.tool_calls]
        first, *others = ({"delta": delta, "finish_reason": None} for delta in deltas)
        if event.logprobs:
            first["logprobs"] = chat_logprobs(event.logprobs)
        return [self._head + msgspec.json.encode(choice)[1:] + b"]}\n\n" for choice in (first, *others)]

    def _call(self, call: ToolCallDelta) -> dict[str, Any]:
        if call.index in self._named:
            return {"index": call.index, "function": {"arguments": call.arguments}}
        self._named.add(call.index)
        function = {"name": call.name, "arguments": call.arguments}
        return {"index": call.index, "id": call.id, "type": "function", "function": function}

    def _finish(self, event: Finished) -> bytes:
        chunk = self._head + b'"delta":{},"finish_reason":' + msgspec.json.encode(event.reason) + b"}]"
        if self._with_timings:
            chunk += b',"timings":' + msgspec.json.encode(timings([event]))
        return chunk + b"}\n\n"


def ending(shared: dict[str, Any], encoders: Sequence[ChatChunks], *, with_usage: bool) -> bytes:
    if not with_usage:
        return DONE
    finished = [encoder.finished for encoder in encoders if encoder.finished is not None]
    counts = {"choices": [], "usage": usage(finished, len(encoders)), "timings": timings(finished)}
    return sse.event({**shared, **counts}) + DONE
