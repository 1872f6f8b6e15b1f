"""One choice's events → `text_completion` chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from minerva.server import sse
from minerva.server.openai.envelope import DONE, chunk_head
from minerva.server.openai.logprobs import legacy_logprobs
from minerva.server.openai.usage import timings, usage
from minerva.server.transcript import Output
from minerva.worker.protocol import Delta, Finished, Started

TEXT_TAIL = b',"logprobs":null,"finish_reason":null}]}\n\n'


class CompletionChunks:
    """`echo` is the prompt's text, sent first; empty when it was not asked for."""

    def __init__(self, shared: dict[str, Any], index: int, *, echo: str, with_timings: bool) -> None:
        self._text_head = chunk_head(shared, index) + b'"text":'
        self._echo = echo
        self._with_timings = with_timings
        self._offset = 0
        self.finished: Finished | None = None

    def encode(self, batch: list[Output]) -> bytes:
        out: list[bytes] = []
        for event in batch:
            if isinstance(event, Delta):
                if event.logprobs:
                    out.append(self._with_logprobs(event))
                elif event.text:
                    out += (self._text_head, sse.json_string(event.text), TEXT_TAIL)
            elif isinstance(event, Started):
                if self._echo:
                    out += (self._text_head, sse.json_string(self._echo), TEXT_TAIL)
            elif isinstance(event, Finished):
                self.finished = event
                out.append(self._finish(event))
        return b"".join(out)

    def _with_logprobs(self, event: Delta) -> bytes:
        shape = legacy_logprobs(event.logprobs, self._offset)
        self._offset += sum(len(token.token) for token in event.logprobs)
        tail = {"logprobs": shape, "finish_reason": None}
        return self._text_head + sse.json_string(event.text) + b"," + msgspec.json.encode(tail)[1:] + b"]}\n\n"

    def _finish(self, event: Finished) -> bytes:
        tail = {"logprobs": None, "finish_reason": event.reason}
        chunk = self._text_head + b'"",' + msgspec.json.encode(tail)[1:] + b"]"
        if self._with_timings:
            chunk += b',"timings":' + msgspec.json.encode(timings([event]))
        return chunk + b"}\n\n"


def ending(shared: dict[str, Any], encoders: Sequence[CompletionChunks], n: int, *, with_usage: bool) -> bytes:
    if not with_usage:
        return DONE
    finished = [encoder.finished for encoder in encoders if encoder.finished is not None]
    counts = {"choices": [], "usage": usage(finished, n), "timings": timings(finished)}
    return sse.event({**shared, **counts}) + DONE
