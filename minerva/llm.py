"""The engine without HTTP, in the caller's own process."""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, get_args, overload

import msgspec

from minerva.engine.answer import Answer
from minerva.engine.loading import load
from minerva.engine.messages import (
    ChatPrompt,
    Constraint,
    ConstraintKind,
    Delta,
    Event,
    Failed,
    Finished,
    Prompt,
    TextPrompt,
    TokenLogprob,
    TokenPrompt,
    ToolCallDelta,
)
from minerva.engine.options import EngineOptions
from minerva.engine.output import Output
from minerva.engine.params import SamplingParams
from minerva.errors import RequestError
from minerva.models.catalogue import EMBEDDED
from minerva.models.metadata import read_metadata

Messages = Sequence[dict[str, Any]]
"""A conversation in OpenAI's shape: dicts of role and content."""

TextOrTokens = str | list[int]

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(slots=True)
class Completion:
    """A whole answer. `finish_reason`: stop, length or tool_calls; `tool_calls` in OpenAI's shape."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Chunk:
    """A piece of an answer; the last one has `finish_reason`."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None


class _Local:
    """One model and its engine; what LLM and AsyncLLM share."""

    def __init__(self, model: str | Path | None, options: dict[str, Any]) -> None:
        path = EMBEDDED if model is None else Path(model).expanduser()
        read_metadata(path)
        self._loaded = load(engine_options(path, options))
        self._ids = itertools.count(1)
        self._loaded.engine.start()

    @property
    def n_ctx(self) -> int:
        """Tokens that one prompt and its answer may have together."""
        return self._loaded.engine.scheduler.n_ctx

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return self._loaded.model.vocab.tokenize(text, add_special=add_special)

    def detokenize(self, tokens: list[int]) -> str:
        return self._loaded.model.vocab.detokenize(tokens).decode("utf-8", "replace")

    def submit(self, prompt: Prompt, params: SamplingParams, put: Callable[[Output], None]) -> Answer:
        prepared = self._loaded.frontend.prepare(prompt, params)
        id = next(self._ids)
        self._loaded.engine.submit(self._loaded.frontend.sequence(id, prepared, params, put))
        return Answer(id, prepared.parser())

    def cancel(self, id: int) -> None:
        self._loaded.engine.cancel(id)

    def close(self) -> None:
        self._loaded.engine.stop()


class LLM:
    """A model in this process: `LLM("model.gguf")`, or `LLM()` for the embedded one.

    Keywords are `EngineOptions` fields (ctx_size, parallel, threads, gpu_layers, …). Methods may be called from
    several threads: their requests share each step. Close it, or use it as a context manager. Sampling keywords are
    `SamplingParams` fields (temperature, top_p, seed, stop, max_tokens, …), and one of json_schema, regex, choice or
    grammar that the answer must match.
    Raises `InvalidModelError` or `ModelLoadError`.
    """

    def __init__(self, model: str | Path | None = None, **options: Any) -> None:
        self._local = _Local(model, options)

    @overload
    def chat(self, messages: Messages, *, stream: Literal[False] = ..., **kwargs: Any) -> Completion: ...
    @overload
    def chat(self, messages: Messages, *, stream: Literal[True], **kwargs: Any) -> Iterator[Chunk]: ...
    def chat(
        self,
        messages: Messages,
        *,
        stream: bool = False,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str = "auto",
        **sampling: Any,
    ) -> Completion | Iterator[Chunk]:
        """Answers a conversation through the model's chat template."""
        prompt = chat_prompt(messages, tools, tool_choice, take_constraint(sampling))
        chunks = self._stream(prompt, sampling_params(sampling))
        return _chunks(chunks) if stream else _gather(chunks)

    @overload
    def generate(self, prompt: TextOrTokens, *, stream: Literal[False] = ..., **kwargs: Any) -> Completion: ...
    @overload
    def generate(self, prompt: TextOrTokens, *, stream: Literal[True], **kwargs: Any) -> Iterator[Chunk]: ...
    @overload
    def generate(self, prompt: list[str], **kwargs: Any) -> list[Completion]: ...
    def generate(
        self,
        prompt: TextOrTokens | list[str],
        *,
        stream: bool = False,
        **sampling: Any,
    ) -> Completion | list[Completion] | Iterator[Chunk]:
        """Continues a text (or token ids); a list of texts is one batch, its completions in the same order."""
        constraint = take_constraint(sampling)
        params = sampling_params(sampling)
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
            if stream:
                raise RequestError("a batch of prompts cannot be streamed", param="stream")
            streams = [self._stream(text_prompt(text, constraint), params) for text in prompt]
            return [_gather(events) for events in streams]
        events = self._stream(text_prompt(prompt, constraint), params)
        return _chunks(events) if stream else _gather(events)

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return self._local.tokenize(text, add_special=add_special)

    def detokenize(self, tokens: list[int]) -> str:
        return self._local.detokenize(tokens)

    @property
    def n_ctx(self) -> int:
        """Tokens that one prompt and its answer may have together."""
        return self._local.n_ctx

    def close(self) -> None:
        """Ends what runs, and the engine."""
        self._local.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stream(self, prompt: Prompt, params: SamplingParams) -> Iterator[Event]:
        """The request is on its way when this returns; the iterator's end, or its disposal, is the request's."""
        outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
        answer = self._local.submit(prompt, params, outputs.put)

        def events() -> Iterator[Event]:
            try:
                while True:
                    output = outputs.get()
                    yield from _raised(answer.events(output))
                    if output.finish:
                        return
            finally:
                self._local.cancel(answer.id)

        return events()


class AsyncLLM:
    """`LLM` for an event loop: the same keywords, awaited or iterated with `async for`."""

    def __init__(self, model: str | Path | None = None, **options: Any) -> None:
        self._local = _Local(model, options)

    async def chat(
        self,
        messages: Messages,
        *,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str = "auto",
        **sampling: Any,
    ) -> Completion:
        return await self._gather(chat_prompt(messages, tools, tool_choice, take_constraint(sampling)), sampling)

    async def stream_chat(
        self,
        messages: Messages,
        *,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str = "auto",
        **sampling: Any,
    ) -> AsyncIterator[Chunk]:
        prompt = chat_prompt(messages, tools, tool_choice, take_constraint(sampling))
        async for event in self._events(prompt, sampling):
            if (chunk := _chunk(event)) is not None:
                yield chunk

    async def generate(self, prompt: TextOrTokens | list[str], **sampling: Any) -> Completion | list[Completion]:
        constraint = take_constraint(sampling)
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
            tasks = [self._gather(text_prompt(text, constraint), sampling) for text in prompt]
            return list(await asyncio.gather(*tasks))
        return await self._gather(text_prompt(prompt, constraint), sampling)

    async def stream_generate(self, prompt: TextOrTokens, **sampling: Any) -> AsyncIterator[Chunk]:
        async for event in self._events(text_prompt(prompt, take_constraint(sampling)), sampling):
            if (chunk := _chunk(event)) is not None:
                yield chunk

    async def close(self) -> None:
        """Ends what runs, and the engine."""
        await asyncio.to_thread(self._local.close)

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _gather(self, prompt: Prompt, sampling: dict[str, Any]) -> Completion:
        return _gather([event async for event in self._events(prompt, sampling)])

    async def _events(self, prompt: Prompt, sampling: dict[str, Any]) -> AsyncIterator[Event]:
        loop = asyncio.get_running_loop()
        outputs: asyncio.Queue[Output] = asyncio.Queue()

        def put(output: Output) -> None:
            loop.call_soon_threadsafe(outputs.put_nowait, output)

        answer = await asyncio.to_thread(self._local.submit, prompt, sampling_params(sampling), put)
        try:
            while True:
                output = await outputs.get()
                for event in _raised(answer.events(output)):
                    yield event
                if output.finish:
                    return
        finally:
            self._local.cancel(answer.id)


def chat_prompt(
    messages: Messages, tools: list[dict[str, Any]] | None, tool_choice: str, constraint: Constraint | None
) -> ChatPrompt:
    if not messages:
        raise RequestError("messages must not be empty", param="messages")
    return ChatPrompt(
        messages=json.dumps(list(messages)),
        tools=json.dumps(tools) if tools else None,
        tool_choice=tool_choice,
        constraint=constraint,
    )


def text_prompt(prompt: Any, constraint: Constraint | None) -> TextPrompt | TokenPrompt:
    if isinstance(prompt, str):
        return TextPrompt(text=prompt, constraint=constraint)
    if isinstance(prompt, list) and all(isinstance(t, int) for t in prompt):
        return TokenPrompt(tokens=prompt, constraint=constraint)
    raise RequestError("a prompt is a text, a list of texts, or a list of token ids", param="prompt")


def take_constraint(given: dict[str, Any]) -> Constraint | None:
    """Takes json_schema (a dict), regex, choice (a list of texts) or grammar (GBNF) out of the keywords."""
    found = {kind: given.pop(kind) for kind in get_args(ConstraintKind) if given.get(kind) is not None}
    if len(found) > 1:
        raise RequestError(f"{' and '.join(found)} exclude each other: give one")
    for kind, source in found.items():
        return Constraint(kind, source if isinstance(source, str) else json.dumps(source))
    return None


def engine_options(path: Path, given: dict[str, Any]) -> EngineOptions:
    """Raises `RequestError` that names a wrong keyword or type."""
    return _converted(given, EngineOptions, "option", model=str(path))


def sampling_params(given: dict[str, Any]) -> SamplingParams:
    """Raises `RequestError` that names a wrong keyword or type."""
    if isinstance(given.get("stop"), str):
        given = {**given, "stop": (given["stop"],)}
    return _converted(given, SamplingParams, "sampling parameter")


def _converted(given: dict[str, Any], kind: type[T], what: str, **fixed: Any) -> T:
    accepted = [name for name in kind.__struct_fields__ if name not in fixed]
    if unknown := sorted(set(given) - set(accepted)):
        raise RequestError(f"unknown {what} {', '.join(unknown)}; accepted: {', '.join(accepted)}", param=unknown[0])
    try:
        return msgspec.convert({**given, **fixed}, kind)
    except msgspec.ValidationError as e:
        raise RequestError(f"{what}s: {e}") from None


def _raised(events: list[Event]) -> list[Event]:
    for event in events:
        if isinstance(event, Failed):
            raise event.exception()
    return events


def _chunk(event: Event) -> Chunk | None:
    if isinstance(event, Delta):
        return Chunk(event.text, event.reasoning, tuple(event.tool_calls), tuple(event.logprobs))
    return Chunk(finish_reason=event.reason) if isinstance(event, Finished) else None


def _chunks(events: Iterator[Event]) -> Iterator[Chunk]:
    return (chunk for event in events if (chunk := _chunk(event)) is not None)


def _gather(events: Iterator[Event] | list[Event]) -> Completion:
    done = Completion()
    for event in events:
        if isinstance(event, Delta):
            done.text += event.text
            done.reasoning += event.reasoning
            done.logprobs += event.logprobs
            for piece in event.tool_calls:
                _add_call(done.tool_calls, piece)
        elif isinstance(event, Finished):
            done.finish_reason = event.reason
            done.prompt_tokens = event.prompt_tokens
            done.cached_tokens = event.cached_tokens
            done.completion_tokens = event.completion_tokens
    return done


def _add_call(calls: list[dict[str, Any]], piece: ToolCallDelta) -> None:
    while len(calls) <= piece.index:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[piece.index]
    call["id"] = call["id"] or piece.id
    call["function"]["name"] += piece.name
    call["function"]["arguments"] += piece.arguments
