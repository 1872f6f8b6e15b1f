"""The tensors and hyperparameters of each supported architecture (llama.cpp's src/models/*.cpp).

Tensor shapes are (outputs, inputs), numpy's order; GGUF stores them reversed.

Weights have standard deviation 1/sqrt(inputs), so activations keep unit size, and queries and keys
are louder than that (ATTENTION_GAIN), so attention picks few tokens and the output depends on the
whole context: a wrong cell in a KV cache changes the text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tools.random_model.shapes import Shape

Metadata = dict[str, bool | int | float | list[int]]

ATTENTION_GAIN = 1.5
EMBEDDING_GAIN = 3.0

# Gemma multiplies its embedding by sqrt(width), and a tied output would make each token predict itself:
# louder layers drown it. Attention, an average over many tokens, changes slowly: quieter, or the text would stall.
POST_FEED_FORWARD_GAIN = 12.0
POST_ATTENTION_GAIN = 3.0


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor to fill from a normal distribution; `full` keeps it in F32 whatever the model's type."""

    name: str
    shape: tuple[int, ...]
    std: float
    mean: float = 0.0
    full: bool = False


@dataclass(frozen=True, slots=True)
class Architecture:
    """`square`: queries are as wide as the model, so the head size follows from the width."""

    metadata: Callable[[Shape], Metadata]
    layer: Callable[[Shape, int], Iterator[Tensor]]
    square: bool = False
    output_norm: str = "output_norm.weight"

    def tensors(self, shape: Shape, vocabulary: int) -> Iterator[Tensor]:
        yield matrix("token_embd.weight", vocabulary, shape.width, EMBEDDING_GAIN)
        yield vector(self.output_norm, shape.width)
        for i in range(shape.layers):
            for t in self.layer(shape, i):
                yield Tensor(f"blk.{i}.{t.name}", t.shape, t.std, t.mean, t.full)


def matrix(name: str, outputs: int, inputs: int, gain: float = 1.0) -> Tensor:
    return Tensor(name, (outputs, inputs), gain / inputs**0.5)


def vector(name: str, size: int, mean: float = 1.0, std: float = 0.0) -> Tensor:
    return Tensor(name, (size,), std, mean, full=True)


def attention_metadata(s: Shape) -> Metadata:
    return {
        "feed_forward_length": s.feed_forward,
        "attention.head_count": s.heads,
        "attention.head_count_kv": s.kv_heads,
        "attention.key_length": s.head_size,
        "attention.value_length": s.head_size,
        "rope.dimension_count": s.head_size,
        "rope.freq_base": 1e6 if s.context > 8192 else 1e4,
    }


def windowed_metadata(s: Shape) -> Metadata:
    return attention_metadata(s) | {
        "attention.sliding_window": s.sliding_window,
        "attention.sliding_window_pattern": 2,  # every second layer sees the whole context
    }


def attention(s: Shape, gain: float = ATTENTION_GAIN) -> Iterator[Tensor]:
    yield vector("attn_norm.weight", s.width)
    yield matrix("attn_q.weight", s.heads * s.head_size, s.width, gain)
    yield matrix("attn_k.weight", s.kv_heads * s.head_size, s.width, gain)
    yield matrix("attn_v.weight", s.kv_heads * s.head_size, s.width)
    yield matrix("attn_output.weight", s.width, s.heads * s.head_size)


def query_key_norms(s: Shape) -> Iterator[Tensor]:
    yield vector("attn_q_norm.weight", s.head_size, ATTENTION_GAIN)
    yield vector("attn_k_norm.weight", s.head_size, ATTENTION_GAIN)


def feed_forward(s: Shape) -> Iterator[Tensor]:
    yield vector("ffn_norm.weight", s.width)
    yield matrix("ffn_gate.weight", s.feed_forward, s.width)
    yield matrix("ffn_up.weight", s.feed_forward, s.width)
    yield matrix("ffn_down.weight", s.width, s.feed_forward, 2.0)


def llama_layer(s: Shape, i: int) -> Iterator[Tensor]:
    yield from attention(s)
    yield from feed_forward(s)


def qwen2_layer(s: Shape, i: int) -> Iterator[Tensor]:
    yield from llama_layer(s, i)
    yield vector("attn_q.bias", s.heads * s.head_size, mean=0.0, std=0.1)
    yield vector("attn_k.bias", s.kv_heads * s.head_size, mean=0.0, std=0.1)
    yield vector("attn_v.bias", s.kv_heads * s.head_size, mean=0.0, std=0.1)


def qwen3_layer(s: Shape, i: int) -> Iterator[Tensor]:
    yield from llama_layer(s, i)
    yield from query_key_norms(s)


def gemma2_layer(s: Shape, i: int) -> Iterator[Tensor]:
    yield from llama_layer(s, i)
    yield vector("post_attention_norm.weight", s.width, POST_ATTENTION_GAIN)
    yield vector("post_ffw_norm.weight", s.width, POST_FEED_FORWARD_GAIN)


def gemma3_layer(s: Shape, i: int) -> Iterator[Tensor]:
    yield from gemma2_layer(s, i)
    yield from query_key_norms(s)


def phi3_layer(s: Shape, i: int) -> Iterator[Tensor]:
    yield vector("attn_norm.weight", s.width)
    yield matrix("attn_qkv.weight", (s.heads + 2 * s.kv_heads) * s.head_size, s.width, ATTENTION_GAIN)
    yield matrix("attn_output.weight", s.width, s.heads * s.head_size)
    yield vector("ffn_norm.weight", s.width)
    yield matrix("ffn_up.weight", 2 * s.feed_forward, s.width)
    yield matrix("ffn_down.weight", s.width, s.feed_forward, 2.0)


MAMBA_STATE = 16
MAMBA_CONV = 4


def mamba_rank(s: Shape) -> int:
    return max(32, s.width // 16)  # a row of the time step's projection is a whole block


def mamba_metadata(s: Shape) -> Metadata:
    return {
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "ssm.conv_kernel": MAMBA_CONV,
        "ssm.inner_size": 2 * s.width,
        "ssm.state_size": MAMBA_STATE,
        "ssm.time_step_rank": mamba_rank(s),
    }


def mamba_layer(s: Shape, i: int) -> Iterator[Tensor]:
    inner, rank = 2 * s.width, mamba_rank(s)
    yield vector("attn_norm.weight", s.width)
    yield matrix("ssm_in.weight", 2 * inner, s.width)
    yield Tensor("ssm_conv1d.weight", (inner, MAMBA_CONV), std=0.5, full=True)
    yield vector("ssm_conv1d.bias", inner, mean=0.0, std=0.1)
    yield matrix("ssm_x.weight", rank + 2 * MAMBA_STATE, inner, 3.0)
    yield matrix("ssm_dt.weight", inner, rank)
    yield vector("ssm_dt.bias", inner, mean=-3.0, std=1.0)
    yield Tensor("ssm_a", (inner, MAMBA_STATE), std=0.5, mean=-4.0, full=True)  # negative: the state decays
    yield vector("ssm_d", inner)
    yield matrix("ssm_out.weight", s.width, inner, 3.0)


LFM2_CONV = 3


def lfm2_is_attention(i: int) -> bool:
    return i % 2 == 1


def lfm2_metadata(s: Shape) -> Metadata:
    kv_heads = [s.kv_heads if lfm2_is_attention(i) else 0 for i in range(s.layers)]
    return attention_metadata(s) | {"attention.head_count_kv": kv_heads, "shortconv.l_cache": LFM2_CONV}


def lfm2_layer(s: Shape, i: int) -> Iterator[Tensor]:
    if lfm2_is_attention(i):
        yield from attention(s)
        yield from query_key_norms(s)
    else:
        yield vector("attn_norm.weight", s.width)
        yield Tensor("shortconv.conv.weight", (s.width, LFM2_CONV), std=0.6, full=True)
        yield matrix("shortconv.in_proj.weight", 3 * s.width, s.width)
        yield matrix("shortconv.out_proj.weight", s.width, s.width)
    yield from feed_forward(s)


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(attention_metadata, llama_layer),
    "qwen2": Architecture(attention_metadata, qwen2_layer, square=True),
    "qwen3": Architecture(attention_metadata, qwen3_layer),
    "gemma2": Architecture(windowed_metadata, gemma2_layer),
    "gemma3": Architecture(windowed_metadata, gemma3_layer),
    "phi3": Architecture(attention_metadata, phi3_layer, square=True),
    "mamba": Architecture(mamba_metadata, mamba_layer),  # recurrent
    "lfm2": Architecture(lfm2_metadata, lfm2_layer, square=True, output_norm="token_embd_norm.weight"),  # hybrid
}
