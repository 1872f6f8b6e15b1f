"""Runs one workload against one HTTP server and reduces it to figures."""

import asyncio
import random
import time
from dataclasses import asdict, dataclass
from typing import Any

from bench.client import Client, Sampling, Timing
from bench.lag import LagWatch
from bench.prompts import SCHEMA, conversations, words
from bench.workloads import Metric, Workload


@dataclass(frozen=True, slots=True)
class Limits:
    """A request counts for goodput when both hold; seconds."""

    ttft: float = 2.0
    tpot: float = 0.2


@dataclass(slots=True)
class Figures:
    """One run of one workload. Times in seconds, rates per second; `score` is the workload's own metric."""

    score: float
    output_tok_s: float = 0.0
    total_tok_s: float = 0.0
    wall_s: float = 0.0
    ttft_p50: float = 0.0
    ttft_p99: float = 0.0
    tpot_p50: float = 0.0
    itl_p50: float = 0.0
    itl_p99: float = 0.0
    itl_max: float = 0.0
    e2e_p50: float = 0.0
    e2e_p99: float = 0.0
    goodput_req_s: float = 0.0
    errors: int = 0
    short: int = 0
    peak_rss_bytes: int = 0
    prompt_tokens_mean: float = 0.0
    client_lag_max: float = 0.0
    first_error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def percentile(values: list[float], q: float) -> float:
    """Nearest rank; 0 for no values."""
    ordered = sorted(values)
    return ordered[min(round(q * (len(ordered) - 1)), len(ordered) - 1)] if ordered else 0.0


def reduce(timings: list[Timing], wall_s: float, max_tokens: int, limits: Limits) -> Figures:
    ok = [t for t in timings if t.error is None]
    gaps = [g for t in ok for g in t.gaps]
    output = sum(t.output_tokens for t in ok)
    ends = [t.ended - t.started for t in ok]
    good = [t for t in ok if t.ttft <= limits.ttft and t.tpot <= limits.tpot]
    return Figures(
        score=output / wall_s,
        output_tok_s=output / wall_s,
        total_tok_s=(output + sum(t.prompt_tokens for t in ok)) / wall_s,
        wall_s=wall_s,
        ttft_p50=percentile([t.ttft for t in ok], 0.5),
        ttft_p99=percentile([t.ttft for t in ok], 0.99),
        tpot_p50=percentile([t.tpot for t in ok], 0.5),
        itl_p50=percentile(gaps, 0.5),
        itl_p99=percentile(gaps, 0.99),
        itl_max=max(gaps, default=0.0),
        e2e_p50=percentile(ends, 0.5),
        e2e_p99=percentile(ends, 0.99),
        goodput_req_s=len(good) / wall_s,
        prompt_tokens_mean=sum(t.prompt_tokens for t in ok) / max(len(ok), 1),
        errors=len(timings) - len(ok),
        short=sum(t.output_tokens < max_tokens for t in ok),
        first_error=next((t.error for t in timings if t.error is not None), None),
    )


async def measure(base_url: str, workload: Workload, seed: int, temperature: float, limits: Limits) -> Figures:
    """Raises RuntimeError when the warm-up fails, or when the workload's metric would mean nothing."""
    rng = random.Random(seed)
    async with Client(base_url) as client:
        await _warm_up(client, rng)
        figures = await _phase(client, workload, rng, Sampling(temperature), limits)
        if workload.constrained:
            schema = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
            sampling = Sampling(temperature, {"response_format": schema})
            free, figures = figures, await _phase(client, workload, rng, sampling, limits)
            figures.client_lag_max = max(figures.client_lag_max, free.client_lag_max)
            if not free.output_tok_s:
                raise RuntimeError(f"no free text to compare with: {free.first_error}")
            figures.score = figures.output_tok_s / free.output_tok_s
    if workload.metric is Metric.WORST_GAP:
        if figures.errors:  # streams that failed have no gaps, and fewer gaps would look better
            raise RuntimeError(f"{figures.errors} errors, no meaningful gap: {figures.first_error}")
        figures.score = figures.itl_max
    elif workload.metric is Metric.GOODPUT:
        figures.score = figures.goodput_req_s
    return figures


async def _warm_up(client: Client, rng: random.Random) -> None:
    timing = await client.complete(Sampling().body([{"role": "user", "content": words(rng, 8)}], 4))
    if timing.error:
        raise RuntimeError(f"warm-up failed: {timing.error}")


async def _phase(client: Client, workload: Workload, rng: random.Random, sampling: Sampling, limits: Limits) -> Figures:
    bodies = [sampling.body(m, workload.max_tokens) for m in conversations(workload, rng)]
    async with LagWatch() as lag:
        start = time.perf_counter()
        intruder = asyncio.create_task(_intrude(client, workload, rng, sampling))
        timings = await client.closed_loop(bodies, workload.clients)
        wall_s = time.perf_counter() - start
        late = await intruder  # its own tokens are not counted; its errors are
    figures = reduce(timings, wall_s, workload.max_tokens, limits)
    figures.client_lag_max = lag.worst
    if problem := _intruder_problem(late, timings):
        figures.errors += 1
        figures.first_error = figures.first_error or problem
    return figures


async def _intrude(client: Client, workload: Workload, rng: random.Random, sampling: Sampling) -> Timing | None:
    if workload.intruder is None:
        return None
    body = sampling.body(
        [{"role": "user", "content": words(rng, workload.intruder.words)}], workload.intruder.max_tokens
    )
    await asyncio.sleep(workload.intruder.after_s)
    return await client.complete(body)


def _intruder_problem(late: Timing | None, timings: list[Timing]) -> str | None:
    if late is None:
        return None
    if late.error is not None:
        return f"intruder: {late.error}"
    if late.started >= max(t.ended for t in timings):
        return "the intruder came after the last token: this model is too fast for the workload, the gap means nothing"
    return None
