"""What a step gave one sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minerva.engine.sequence import Sequence
    from minerva.errors import MinervaError

RawLogprobs = list[tuple[int, bytes, float]]
"""(token, its bytes, log-probability): the chosen token, then the likeliest ones."""


@dataclass(slots=True, frozen=True)
class Output:
    """`text` may be shown as it is. `finish`: None to go on, "stop" or "length". `at`: the engine's clock, seconds."""

    sequence: Sequence
    text: str = ""
    logprobs: RawLogprobs | None = None
    finish: str | None = None
    stop_sequence: str | None = None
    error: MinervaError | None = None
    at: float = 0.0
