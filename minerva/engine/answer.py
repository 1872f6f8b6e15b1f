"""From a sequence's outputs to events: content, reasoning and tool calls apart, counts and times at the end."""

from __future__ import annotations

import secrets
import string
from typing import TYPE_CHECKING

from minerva.engine.messages import Delta, Event, Failed, Finished, Started, TokenLogprob, ToolCallDelta
from minerva.engine.output import Output, RawLogprobs

if TYPE_CHECKING:
    from minerva._core import ChatParser
    from minerva.engine.sequence import Sequence


class Answer:
    """One request's answer as it grows. Used by one thread at a time."""

    def __init__(self, id: int, parser: ChatParser | None) -> None:
        self.id = id
        self._parser = parser
        self._started = False
        self._call_ids: dict[int, str] = {}

    def events(self, output: Output) -> list[Event]:
        sequence = output.sequence
        if output.error is not None:
            return [Failed.of(self.id, output.error)]
        events: list[Event] = []
        if not self._started:
            self._started = True
            events.append(Started(self.id, sequence.prompt_len, sequence.cached))
        logprobs = [_logprob(output.logprobs)] if output.logprobs else []
        if self._parser is not None:
            delta = self._parse(output.text, last=output.finish is not None, logprobs=logprobs)
            if delta is not None:
                events.append(delta)
        elif output.text or logprobs:
            events.append(Delta(self.id, output.text, "", [], logprobs))
        if output.finish:
            events.append(self._finished(sequence, output))
        return events

    def _parse(self, text: str, *, last: bool, logprobs: list[TokenLogprob]) -> Delta | None:
        if not (text or last or logprobs):
            return None
        assert self._parser is not None
        found = self._parser.push(text, last=last)
        calls = []
        for call in found["tool_calls"]:
            index = call["index"]
            id = ""
            if index not in self._call_ids:
                id = self._call_ids[index] = call["id"] or _call_id()
            calls.append(ToolCallDelta(index, id, call["name"], call["arguments"]))
        if not (found["content"] or found["reasoning"] or calls or logprobs):
            return None
        return Delta(self.id, found["content"], found["reasoning"], calls, logprobs)

    def _finished(self, sequence: Sequence, output: Output) -> Finished:
        assert output.finish is not None
        assert sequence.admitted is not None
        assert sequence.first_token is not None
        reason = "tool_calls" if self._call_ids and output.finish == "stop" else output.finish
        return Finished(
            self.id,
            reason,
            sequence.prompt_len,
            sequence.cached,
            sequence.generated,
            output.stop_sequence,
            sequence.admitted - sequence.arrived,
            sequence.first_token - sequence.admitted,
            output.at - sequence.first_token,
        )


def _call_id() -> str:
    """Nine letters and digits: some templates refuse to render a call under any other id."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


def _logprob(raw: RawLogprobs) -> TokenLogprob:
    (token, piece, value), *others = raw
    top = [TokenLogprob(p.decode("utf-8", "replace"), p, t, v) for t, p, v in others]
    return TokenLogprob(piece.decode("utf-8", "replace"), piece, token, value, top)
