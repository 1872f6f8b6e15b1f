"""How large a random model is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a model; architectures derive what they need beyond these."""

    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    sliding_window: int

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.width % 32 or self.feed_forward % 32 or self.head_size % 32:
            raise ValueError("width, feed_forward and head_size must be multiples of 32, the quantisation block")


SHAPES: dict[str, Shape] = {
    # The benchmark's model (docs: BENCH.md): the dimensions of a 0.6B Qwen3; 381 MB at q4_0.
    "base": Shape(28, 1024, 3072, 16, 8, 128, context=32768, sliding_window=1024),
    # The smallest width whose rows hold a whole K-quant block.
    "small": Shape(4, 256, 768, 4, 2, 64, context=8192, sliding_window=256),
    # Hardly a model: what is left of the time is the overhead per token.
    "tiny": Shape(2, 128, 256, 4, 2, 32, context=32768, sliding_window=128),
    # For unit tests: loads in milliseconds.
    "test": Shape(2, 64, 128, 2, 1, 32, context=8192, sliding_window=64),
}
