"""Random weights, written straight in a GGML type.

Quantising floats would take minutes for a real model; a quantised block is a few half-precision
scales and otherwise free bits, so random bytes with chosen scales are a valid tensor at once.
The layouts are those of ggml-common.h.
"""

from dataclasses import dataclass

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a block keeps its scale, and what its weights look like when every other bit is random.

    `rms` is the root mean square of the dequantised weights for a scale of 1. A type with an offset
    is centred by `offset_ratio` times the scale; one without leans to one side by half a step, so
    the sign of its scale is drawn at random.
    """

    rms: float
    scale_at: int = 0
    offset_at: int | None = None
    offset_ratio: float = 0.0


LAYOUTS: dict[Type, Layout] = {
    Type.Q4_0: Layout(rms=4.64),
    Type.Q4_1: Layout(rms=4.61, offset_at=2, offset_ratio=-7.5),
    Type.Q5_0: Layout(rms=9.25),
    Type.Q5_1: Layout(rms=9.23, offset_at=2, offset_ratio=-15.5),
    Type.Q8_0: Layout(rms=73.9),
    Type.Q4_K: Layout(rms=258.0, offset_at=2, offset_ratio=7.5),
    Type.Q5_K: Layout(rms=525.0, offset_at=2, offset_ratio=15.5),
    Type.Q6_K: Layout(rms=1796.0, scale_at=208),
}

QTYPES: dict[str, Type] = {t.name.lower(): t for t in (Type.F32, Type.F16, Type.BF16, *LAYOUTS)}


def fits(qtype: Type, columns: int) -> bool:
    """Whether a row of `columns` weights is a whole number of blocks."""
    return columns % GGML_QUANT_SIZES[qtype][0] == 0


def row_bytes(qtype: Type, columns: int) -> int:
    block, size = GGML_QUANT_SIZES[qtype]
    return columns // block * size


def random_rows(
    rng: np.random.Generator,
    qtype: Type,
    shape: tuple[int, ...],
    std: float,
    row_gain: NDArray[np.float32] | None = None,
) -> Bytes:
    """Weights of standard deviation `std` (row i times `row_gain[i]`), shaped `(*shape[:-1], bytes per row)`."""
    out = (*shape[:-1], row_bytes(qtype, shape[-1]))
    gain = np.float32(std) if row_gain is None else np.float32(std) * row_gain.reshape(-1, 1)
    if qtype not in LAYOUTS:
        weights = rng.standard_normal((int(np.prod(shape[:-1])), shape[-1]), dtype=np.float32)
        weights *= gain
        return _encode(weights, qtype).reshape(out)
    return _random_blocks(rng, qtype, int(np.prod(shape[:-1])), shape[-1], gain).reshape(out)


def _random_blocks(
    rng: np.random.Generator, qtype: Type, rows: int, columns: int, gain: np.float32 | NDArray[np.float32]
) -> Bytes:
    layout = LAYOUTS[qtype]
    block, size = GGML_QUANT_SIZES[qtype]
    count = rows * (columns // block)
    raw = rng.integers(0, 1 << 64, size=-(-count * size // 8), dtype=np.uint64)
    blocks = raw.view(np.uint8)[: count * size].reshape(rows, columns // block, size)
    scale = np.broadcast_to(gain / np.float32(layout.rms), blocks.shape[:2])
    if layout.offset_at is None:
        scale = scale * (1 - 2 * rng.integers(0, 2, size=scale.shape, dtype=np.int8))
    else:
        _put_half(blocks, layout.offset_at, scale * np.float32(layout.offset_ratio))
    _put_half(blocks, layout.scale_at, scale)
    if qtype is Type.Q8_0:  # a quantiser never writes -128, and kernels may rely on it
        quants = blocks[..., 2:].view(np.int8)
        np.maximum(quants, -127, out=quants)
    elif qtype is Type.Q6_K:  # sub-scales of 64 to 127, so that no row is much longer than the others
        subscales = blocks[..., 192:208].view(np.int8)
        magnitude = (subscales & 63) + 64
        subscales[...] = np.where(subscales < 0, -magnitude, magnitude)
    return blocks


def _put_half(blocks: Bytes, at: int, values: NDArray[np.float32]) -> None:
    blocks[..., at : at + 2] = values.astype("<f2")[..., None].view(np.uint8)


def _encode(weights: NDArray[np.float32], qtype: Type) -> Bytes:
    if qtype is Type.BF16:
        return (weights.view(np.uint32) >> 16).astype("<u2").view(np.uint8)
    return weights.astype("<f4" if qtype is Type.F32 else "<f2", copy=False).view(np.uint8)
