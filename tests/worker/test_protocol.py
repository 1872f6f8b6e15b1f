"""Frames: what goes in comes out however the bytes are cut, and bytes that are no frames end the connection."""

from __future__ import annotations

import asyncio
import io
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minerva.engine.options import EngineOptions
from minerva.engine.params import SamplingParams
from minerva.worker import protocol as p
from minerva.worker.connection import Connection
from minerva.worker.process import WorkerProcess

ids = st.integers(0, 2**63 - 1)
texts = st.text(max_size=20)
floats = st.floats(allow_nan=False)
tokens = st.lists(st.integers(0, 2**31 - 1), max_size=5)
constraints = st.none() | st.builds(p.Constraint, st.sampled_from(["json_schema", "regex", "choice", "grammar"]), texts)
prompts = (
    st.builds(p.ChatPrompt, messages=texts, tools=st.none() | texts, constraint=constraints)
    | st.builds(p.TextPrompt, text=texts, suffix=st.none() | texts, constraint=constraints)
    | st.builds(p.TokenPrompt, tokens=tokens, constraint=constraints)
)
sampling = st.builds(
    SamplingParams,
    temperature=st.floats(0, 100),
    seed=st.none() | st.integers(-(2**63), 2**64 - 1),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
    logit_bias=st.dictionaries(st.integers(0, 2**31 - 1), st.floats(-100, 100), max_size=3),
    max_tokens=st.none() | st.integers(1, 2**31 - 1),
)
requests = (
    st.builds(p.Load, st.builds(EngineOptions, model=texts, parallel=st.none() | st.integers(1, 256)))
    | st.builds(p.Generate, ids, prompts, sampling, st.integers(-(2**31), 2**31), st.none() | floats, texts)
    | st.builds(p.Cancel, ids)
    | st.builds(p.Tokenize, ids, texts, st.booleans(), st.booleans(), st.booleans())
    | st.builds(p.Detokenize, ids, tokens)
    | st.builds(p.ApplyTemplate, ids, st.builds(p.ChatPrompt, messages=texts))
    | st.builds(p.Ping, floats)
    | st.builds(p.Inspect, ids)
    | st.just(p.Shutdown())
)
logprobs = st.builds(p.TokenLogprob, texts, st.binary(max_size=5), st.integers(0, 2**31), floats)
deltas = st.builds(
    p.Delta,
    ids,
    texts,
    texts,
    st.lists(st.builds(p.ToolCallDelta, st.integers(0, 9), texts, texts, texts), max_size=2),
    st.lists(logprobs, max_size=2),
)
failures = st.builds(p.Failed, ids, texts, texts, st.none() | texts, st.none() | floats)
events = (
    st.builds(p.Started, ids, ids, ids)
    | deltas
    | st.builds(p.Finished, ids, texts, ids, ids, ids, st.none() | texts, floats, floats, floats)
    | failures
)
answers = (
    st.builds(p.Loading, floats)
    | st.builds(p.LoadFailed, texts, texts)
    | st.builds(p.Events, st.lists(events, max_size=4))
    | failures
    | st.builds(p.Reply, ids, tokens, st.lists(st.binary(max_size=5), max_size=3), texts)
    | st.builds(p.Pong, floats, ids, ids, st.dictionaries(texts, floats, max_size=3))
)


class Pipe(asyncio.Transport):
    """What a connection believes to be its socket."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def close(self) -> None:
        self.ended = True

    abort = close

    def is_closing(self) -> bool:
        return self.ended


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(a % (len(data) + 1) for a in at), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(answers, max_size=5), st.lists(st.integers(0, 10_000), max_size=8))
@settings(max_examples=150, deadline=None)
def test_answers_arrive_whole_and_in_order_however_they_are_cut(sent: list[Any], at: list[int]) -> None:
    received: list[Any] = []
    connection = Connection(received.append, lambda: None)
    connection.connection_made(Pipe())
    for piece in cut(b"".join(p.encode(frame) for frame in sent), at):
        connection.data_received(piece)
    assert received == sent


@given(st.lists(requests, max_size=5), st.integers(0, 200))
@settings(max_examples=150, deadline=None)
def test_requests_arrive_whole_and_a_cut_one_is_the_end(sent: list[Any], missing: int) -> None:
    data = b"".join(p.encode(frame) for frame in sent)
    whole = data[: max(0, len(data) - missing)]
    process = WorkerProcess.__new__(WorkerProcess)
    process._stream = io.BufferedReader(io.BytesIO(whole))  # type: ignore[arg-type]
    received = list(iter(process._receive, None))
    assert received == sent[: len(received)]
    left = len(whole) - len(b"".join(p.encode(frame) for frame in received))
    assert left == 0 or left < len(p.encode(sent[len(received)]))


@given(st.binary(max_size=64) | st.binary(max_size=60).map(lambda b: p.HEADER.pack(len(b)) + b))
@settings(max_examples=300, deadline=None)
def test_garbage_from_a_worker_ends_the_connection_or_waits_for_more(noise: bytes) -> None:
    pipe = Pipe()
    received: list[Any] = []
    connection = Connection(received.append, lambda: None)
    connection.connection_made(pipe)
    connection.data_received(noise)  # raises nothing
    size = int.from_bytes(noise[:4], "little")
    if len(noise) >= 4 and (size > p.MAX_FRAME or (len(noise) >= 4 + size and not received)):
        assert pipe.ended
    if pipe.ended:
        before = list(received)
        connection.data_received(p.encode(p.Loading(1.0)))
        assert received == before


@asynccontextmanager
async def joined() -> AsyncIterator[tuple[socket.socket, list[Any], asyncio.Event, Connection]]:
    """A connection on a real socket, and its other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    received: list[Any] = []
    lost = asyncio.Event()
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(received.append, lost.set), sock=ours)
    try:
        yield theirs, received, lost, connection
    finally:
        connection.close()
        theirs.close()


WRONG = {
    "oversized": p.HEADER.pack(p.MAX_FRAME + 1),
    "no msgpack": p.HEADER.pack(4) + b"\xc1\xc1\xc1\xc1",
    "empty": p.HEADER.pack(0),
    "unknown tag": p.HEADER.pack(9) + msgspec.msgpack.encode(["Unknown"]),
    "wrong types": (lambda body: p.HEADER.pack(len(body)) + body)(msgspec.msgpack.encode(["Loading", "much"])),
}


@pytest.mark.parametrize("noise", WRONG.values(), ids=WRONG.keys())
async def test_what_is_no_frame_ends_the_connection_after_the_frames_before_it(noise: bytes) -> None:
    async with joined() as (theirs, received, lost, _):
        theirs.sendall(p.encode(p.Loading(0.5)) + noise + p.encode(p.Loading(0.75)))
        await asyncio.wait_for(lost.wait(), 10)
    assert received == [p.Loading(0.5)]


async def test_a_connection_ends_though_the_other_end_reads_nothing() -> None:
    async with joined() as (theirs, _, lost, connection):
        connection.send(p.Tokenize(1, "x" * 10_000_000))  # more than the socket takes
        theirs.sendall(p.HEADER.pack(p.MAX_FRAME + 1))
        await asyncio.wait_for(lost.wait(), 10)


async def test_an_error_while_a_frame_is_handled_is_the_end_of_the_connection_and_of_nothing_else() -> None:
    async with joined() as (theirs, _, lost, connection):

        def broken(frame: object) -> None:
            raise ZeroDivisionError

        connection._on_frame = broken
        theirs.sendall(p.encode(p.Loading(0.5)))
        await asyncio.wait_for(lost.wait(), 10)
