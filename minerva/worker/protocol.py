"""Frames between the gateway and a worker: msgpack with a four-byte little-endian length in front.

Gateway → worker: `Load`, then `Generate`, `Cancel`, `Tokenize`, `Detokenize`, `ApplyTemplate`, `Inspect`, `Ping`,
`Shutdown`.
Worker → gateway: `Loading`, `Ready`, `LoadFailed`, then `Events` (everything one step produced, in one
frame), `Reply` (to the three text calls), `Queue` and `Pong`.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import msgspec

from minerva.engine.messages import ChatPrompt as ChatPrompt
from minerva.engine.messages import Constraint as Constraint
from minerva.engine.messages import Delta as Delta
from minerva.engine.messages import Event as Event
from minerva.engine.messages import Failed as Failed
from minerva.engine.messages import Finished as Finished
from minerva.engine.messages import Prompt as Prompt
from minerva.engine.messages import Started as Started
from minerva.engine.messages import TextPrompt as TextPrompt
from minerva.engine.messages import TokenLogprob as TokenLogprob
from minerva.engine.messages import TokenPrompt as TokenPrompt
from minerva.engine.messages import ToolCallDelta as ToolCallDelta
from minerva.engine.options import EngineOptions
from minerva.engine.params import SamplingParams

MAX_FRAME = 256 * 1024 * 1024
"""Bytes. A longer frame means that the stream is out of step: the connection is closed."""

HEADER = struct.Struct("<I")


class Frame(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


class Load(Frame, frozen=True):
    """The first frame to a worker: which model to load, and how."""

    options: EngineOptions


class Generate(Frame, frozen=True):
    id: int
    prompt: Prompt
    sampling: SamplingParams
    priority: int = 0
    timeout_s: float | None = None
    namespace: str = ""


class Cancel(Frame, frozen=True):
    id: int


class Tokenize(Frame, frozen=True):
    id: int
    text: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class Detokenize(Frame, frozen=True):
    id: int
    tokens: list[int]


class ApplyTemplate(Frame, frozen=True):
    id: int
    prompt: ChatPrompt


class Ping(Frame, frozen=True):
    sent: float


class Inspect(Frame, frozen=True):
    """Asks for the queue."""

    id: int


class Shutdown(Frame, frozen=True):
    """End: what runs is ended with an error after its present step."""


class Events(Frame, frozen=True):
    items: list[Event]


class Reply(Frame, frozen=True):
    id: int
    tokens: list[int] = []
    pieces: list[bytes] = []
    text: str = ""


class QueueItem(msgspec.Struct, frozen=True):
    """A request in the engine. `position` is 0 for a running one, its place in the queue for a waiting one."""

    id: int
    position: int
    priority: int
    age_s: float
    wait_s: float
    prompt_tokens: int
    computed_tokens: int
    cached_tokens: int
    generated_tokens: int


class Queue(Frame, frozen=True):
    """Answer to `Inspect`."""

    id: int
    items: list[QueueItem]


class WorkerModel(msgspec.Struct, frozen=True, kw_only=True):
    """What only a loaded model can tell. Sizes are in bytes, contexts in tokens."""

    architecture: str
    description: str
    n_ctx: int
    n_ctx_train: int
    n_slots: int
    n_cells: int
    n_vocab: int
    n_params: int
    size: int
    device: str
    gpu_layers: int
    threads: int
    kv_unified: bool
    template: str
    notes: list[str] = []


class Loading(Frame, frozen=True):
    progress: float


class Ready(Frame, frozen=True):
    model: WorkerModel


class LoadFailed(Frame, frozen=True):
    error: str
    message: str


class Pong(Frame, frozen=True):
    """`counters` only grow; `gauges` are what is so now."""

    sent: float
    running: int
    waiting: int
    counters: dict[str, float]
    gauges: dict[str, float] = {}


ToWorker: TypeAlias = Load | Generate | Cancel | Tokenize | Detokenize | ApplyTemplate | Inspect | Ping | Shutdown
ToGateway: TypeAlias = Loading | Ready | LoadFailed | Events | Failed | Reply | Queue | Pong

_encoder = msgspec.msgpack.Encoder()
to_worker = msgspec.msgpack.Decoder(ToWorker)
to_gateway = msgspec.msgpack.Decoder(ToGateway)


def encode(frame: Frame | Failed) -> bytes:
    """One frame with its length in front."""
    body = _encoder.encode(frame)
    return HEADER.pack(len(body)) + body
