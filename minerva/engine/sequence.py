"""A request while it lives in the engine: its tokens, how far they are computed, and where."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minerva.engine.speculation import Ngrams, Pace

if TYPE_CHECKING:
    from minerva._core import Sampler
    from minerva.engine.constraints import TokenConstraint
    from minerva.engine.output import Output
    from minerva.engine.radix import Node


class Status(enum.Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` is the prompt and what was generated after it; the first `computed` of them are in the KV cache.

    Nothing tells prefill from decode: a running sequence is one whose `computed` chases `len(tokens)`. `deadline`
    and the times are readings of the engine's clock, in seconds. A smaller `priority` goes first. Prefixes are
    shared within a `namespace` only: `node` is the part of the prefix cache whose cells it shares, `leader` the
    running sequence that is computing `leader_len` tokens of its prompt for it. One that `shifts` goes on when its
    context is full, without the `dropped` tokens.
    """

    id: int
    tokens: list[int]
    sampler: Sampler
    max_tokens: int | None
    emit: Callable[[Output], None]
    namespace: str = ""
    priority: int = 0
    deadline: float | None = None
    arrived: float = 0.0

    prompt_len: int = 0
    computed: int = 0
    cached: int = 0
    node: Node | None = None
    leader: Sequence | None = None
    leader_len: int = 0
    slot: int = -1
    status: Status = Status.WAITING
    wants_logprobs: bool = False
    shifts: bool = False
    dropped: int = 0
    constraint: TokenConstraint | None = None
    pace: Pace = field(default_factory=Pace)
    ngrams: Ngrams = field(default_factory=Ngrams)
    admitted: float | None = None
    first_token: float | None = None

    def __post_init__(self) -> None:
        self.prompt_len = len(self.tokens)

    @property
    def shared(self) -> int:
        """How many of its computed tokens lie in cells of the prefix cache."""
        return self.node.depth if self.node is not None else 0

    @property
    def own(self) -> int:
        """Cells it will hold for itself once all its tokens are computed."""
        return len(self.tokens) - self.shared

    @property
    def remaining(self) -> int:
        """Tokens that are not computed yet; at least one until the sequence ends."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        return len(self.tokens) + self.dropped - self.prompt_len

    @property
    def decoding(self) -> bool:
        """True when the next step gives it a token for one token computed."""
        return self.remaining == 1 and self.generated > 0
