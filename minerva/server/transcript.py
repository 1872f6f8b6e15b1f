"""With `log_prompts`: what was asked and what was answered, in the log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import TypeAlias

import msgspec

from minerva.worker.protocol import Delta, Finished, Prompt, Started

LOGGER = logging.getLogger("minerva.transcript")

Output: TypeAlias = Started | Delta | Finished
"""What a generation yields; its failure is raised."""

Source: TypeAlias = AsyncIterator[list[Output]]
"""A generation's outputs, as many at a time as had arrived."""


async def logged(source: Source, prompt: Prompt, request_id: str) -> Source:
    LOGGER.info("%s asked %s", request_id, msgspec.json.encode(prompt).decode())
    answer: list[str] = []
    try:
        async for batch in source:
            answer += [event.reasoning + event.text for event in batch if isinstance(event, Delta)]
            yield batch
    finally:
        LOGGER.info("%s got %s", request_id, msgspec.json.encode("".join(answer)).decode())
