"""A decoder of the Llama architecture, small enough to read and to train on a laptop."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """The hyperparameters; `head_dim` 64 is one that every backend's flash attention knows."""

    vocab: int = 1536
    dim: int = 192
    layers: int = 4
    heads: int = 3
    kv_heads: int = 3
    head_dim: int = 64
    hidden: int = 512
    context: int = 1024
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5


def rope(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate neighbouring pairs (llama.cpp's NORM rope, so that no weight is permuted). x: [B, H, T, D]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).type_as(x)


class Attention(nn.Module):
    """Grouped-query attention. `cache` holds the keys and values of earlier positions, or is None."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q = nn.Linear(shape.dim, shape.heads * shape.head_dim, bias=False)
        self.k = nn.Linear(shape.dim, shape.kv_heads * shape.head_dim, bias=False)
        self.v = nn.Linear(shape.dim, shape.kv_heads * shape.head_dim, bias=False)
        self.o = nn.Linear(shape.heads * shape.head_dim, shape.dim, bias=False)

    def forward(self, x: Tensor, angles: Tensor, cache: list[Tensor] | None) -> Tensor:
        batch, length, _ = x.shape
        q = rope(self.q(x).view(batch, length, -1, self.shape.head_dim).transpose(1, 2), angles)
        k = rope(self.k(x).view(batch, length, -1, self.shape.head_dim).transpose(1, 2), angles)
        v = self.v(x).view(batch, length, -1, self.shape.head_dim).transpose(1, 2)
        if cache:
            k, v = torch.cat((cache[0], k), dim=2), torch.cat((cache[1], v), dim=2)
        if cache is not None:
            cache[:] = [k, v]
        groups = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        return self.o(mixed.transpose(1, 2).reshape(batch, length, -1))


class Block(nn.Module):
    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.dim, shape.norm_eps)
        self.attention = Attention(shape)
        self.ffn_norm = nn.RMSNorm(shape.dim, shape.norm_eps)
        self.gate = nn.Linear(shape.dim, shape.hidden, bias=False)
        self.up = nn.Linear(shape.dim, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, angles: Tensor, cache: list[Tensor] | None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), angles, cache))
        h = self.ffn_norm(x)
        return x + self.dropout(self.down(F.silu(self.gate(h)) * self.up(h)))


class Llama(nn.Module):
    """Token ids [B, T] in, hidden states [B, T, dim] out; `logits` applies the tied output embedding."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab, shape.dim)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.dim, shape.norm_eps)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)

    def forward(self, ids: Tensor, caches: list[list[Tensor]] | None = None) -> Tensor:
        start = caches[0][0].shape[2] if caches and caches[0] else 0
        half = torch.arange(0, self.shape.head_dim, 2, device=ids.device) / self.shape.head_dim
        positions = torch.arange(start, start + ids.shape[1], device=ids.device)
        angles = torch.outer(positions, self.shape.rope_theta**-half)
        x = self.embedding(ids)
        for at, block in enumerate(self.blocks):
            x = block(x, angles, caches[at] if caches is not None else None)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding.weight)

    @torch.inference_mode()
    def greedy(self, prompt: list[int], stop: int, limit: int) -> tuple[list[int], bool]:
        """The most likely continuation, and whether it ended with `stop` within `limit` tokens."""
        caches: list[list[Tensor]] = [[] for _ in self.blocks]
        ids, answer = torch.tensor([prompt]), list[int]()
        for _ in range(limit):
            token = int(self.logits(self(ids, caches)[:, -1]).argmax())
            if token == stop:
                return answer, True
            answer.append(token)
            ids = torch.tensor([[token]])
        return answer, False
