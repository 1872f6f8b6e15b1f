"""The load generator: streaming OpenAI chat completions, timed chunk by chunk."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Messages = list[dict[str, str]]


@dataclass(slots=True)
class Timing:
    """One request. Times are seconds; `chunks` are those of the chunks that carried text, from the start."""

    started: float
    chunks: list[float] = field(default_factory=list)
    ended: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None

    @property
    def ttft(self) -> float:
        return self.chunks[0]

    @property
    def tpot(self) -> float:
        """Mean seconds per output token after the first."""
        return (self.chunks[-1] - self.chunks[0]) / max(self.output_tokens - 1, 1)

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in zip(self.chunks, self.chunks[1:], strict=False)]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Greedy by default; every request yields exactly `max_tokens` tokens."""

    temperature: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)

    def body(self, messages: Messages, max_tokens: int) -> dict[str, Any]:
        return {
            "model": "default",
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": self.temperature,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extra,
        }


class Client:
    """Connections are never reused: llama-server drops kept-alive ones after a stream."""

    def __init__(self, base_url: str, timeout_s: float = 600.0) -> None:
        self._url = f"{base_url}/v1/chat/completions"
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def __aenter__(self) -> "Client":
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def complete(self, body: dict[str, Any]) -> Timing:
        """Send one request; an HTTP or connection error is recorded, not raised."""
        timing = Timing(started=time.perf_counter())
        try:
            async with self._session.post(self._url, json=body) as response:
                if response.status != 200:
                    timing.error = f"HTTP {response.status}: {(await response.text())[:200]}"
                else:
                    await self._read(response, timing)
        except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as e:
            timing.error = f"{type(e).__name__}: {e}"
        timing.ended = time.perf_counter()
        if timing.error is None and not timing.chunks:
            timing.error = "the stream carried no text"
        return timing

    async def _read(self, response: aiohttp.ClientResponse, timing: Timing) -> None:
        async for event in _events(response):
            if "error" in event:
                timing.error = str(event["error"])
            if usage := event.get("usage"):
                timing.prompt_tokens, timing.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
            for choice in event.get("choices", ()):
                delta = choice.get("delta", {})
                if delta.get("content") or delta.get("reasoning_content") or delta.get("tool_calls"):
                    timing.chunks.append(time.perf_counter() - timing.started)

    async def closed_loop(self, bodies: list[dict[str, Any]], clients: int) -> list[Timing]:
        """`clients` workers send the bodies in order, each waiting for its answer before its next."""
        waiting = iter(bodies)

        async def worker() -> list[Timing]:
            return [await self.complete(body) for body in waiting]

        answers = await asyncio.gather(*(worker() for _ in range(clients)))
        return [timing for each in answers for timing in each]


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
            yield json.loads(data)
