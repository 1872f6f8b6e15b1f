"""How a model is loaded and its engine is sized: the one record that config, LLM and worker share."""

from __future__ import annotations

import msgspec


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """None means: choose what fits this machine.

    `ctx_size` is the context one request may use, in tokens (0: what the model was trained with); `rope_scaling`
    extends it past that, with the model's own figures where 0 is given. `parallel` is how many requests decode at
    once, `kv_size` how many tokens all of them may hold together, `batch_size` the most tokens of one step,
    `itl_target_ms` the gap between two tokens of an answer that a step should not exceed when prompts are computed
    beside it. `cache_ram_mib` is for prefixes that the KV cache has no room for. `gpu_layers` None offloads what fits
    and falls back to the CPU; 0 forces the CPU.
    """

    model: str
    ctx_size: int | None = None
    parallel: int | None = None
    kv_size: int | None = None
    batch_size: int = 512
    ubatch_size: int = 512
    threads: int | None = None
    threads_batch: int | None = None
    gpu_layers: int | None = None
    main_gpu: int = 0
    flash_attn: str = "auto"
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    kv_unified: bool | None = None
    rope_scaling: str = "auto"
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    yarn_orig_ctx: int = 0
    mmap: bool = True
    mlock: bool = False
    check_tensors: bool = False
    chat_template: str | None = None
    queue_size: int = 512
    itl_target_ms: float = 250.0
    prefix_cache: bool = True
    cache_ram_mib: int = 2048
    speculate: bool = True
    model_draft: str | None = None
    check_integrity: bool = False
