"""From options to a running engine: load the file, size the context, fall back where the GPU gives up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from minerva import _core
from minerva._core import Batch, ChatTemplate, Context, Model
from minerva.engine.budget import StepBudget
from minerva.engine.draft_model import DraftModel
from minerva.engine.engine import Engine
from minerva.engine.frontend import Frontend
from minerva.engine.options import EngineOptions
from minerva.engine.prefix_cache import NoSharing, PrefixCache
from minerva.engine.ram_tier import RamTier
from minerva.engine.scheduler import Scheduler
from minerva.engine.sizing import Sizes, choose_gpu_layers, choose_sizes, choose_threads, free_memory
from minerva.engine.speculation import Guesser, PromptLookup, Speculator
from minerva.errors import InvalidModelError, MinervaError

log = logging.getLogger(__name__)

TYPE_BYTES = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32, "q4_1": 20 / 32,
    "q5_0": 22 / 32, "q5_1": 24 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip
"""Bytes per value of a KV cache type."""


MIN_ROWS = 16
ALL_LAYERS = 9999


@dataclass(slots=True)
class Loaded:
    """A model ready to serve. `device` names what computes most of it."""

    model: Model
    context: Context
    engine: Engine
    frontend: Frontend
    sizes: Sizes
    device: str
    gpu_layers: int
    threads: int
    notes: list[str]


def load(options: EngineOptions, progress: Callable[[float], None] | None = None) -> Loaded:
    """Raises `InvalidModelError` for a file that is no usable model, `ModelLoadError` for one that does not fit."""
    notes: list[str] = []
    model, layers, device = _load_model(options, progress, notes)
    if not model.is_decoder:
        raise InvalidModelError(f"{options.model} is no decoder: it cannot generate text")
    if not model.vocab.is_eog(model.vocab.eos):
        raise InvalidModelError(f"{options.model} has no end-of-text token in its vocabulary")
    sizes = choose_sizes(
        options, n_ctx_train=model.n_ctx_train, kv_bytes_per_token=_kv_bytes(model, options), memory=free_memory()
    )
    threads = options.threads or choose_threads(model.size)
    try:
        context = _make_context(model, options, sizes, threads)
    except MinervaError:
        if layers == 0:
            raise
        notes.append(f"{device} has no room for the context: the CPU computes everything")
        del model
        model, layers, device = _load_model(msgspec.structs.replace(options, gpu_layers=0), progress, notes)
        context = _make_context(model, options, sizes, threads)
    if layers == 0:
        device = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    step_tokens = _step_tokens(options, sizes)
    with ThreadPoolExecutor(1) as elsewhere:
        # OpenMP keeps threads for each thread that ever computed, and with more of them than cores it spins no more
        # at its barriers: a quarter of the speed. This thread ends, and its OpenMP threads with it.
        can_share = elsewhere.submit(can_cut, context, step_tokens).result()
    shares = context.kv_unified and can_share
    guesser: Guesser = PromptLookup()
    if options.model_draft is not None:
        guesser = DraftModel(
            Path(options.model_draft),
            model.vocab,
            n_cells=sizes.n_cells,
            n_slots=sizes.n_slots,
            n_batch=step_tokens,
            threads=threads,
            gpu_layers=ALL_LAYERS if layers else 0,
        )
    ram = RamTier(options.cache_ram_mib << 20)
    scheduler = Scheduler(
        context,
        PrefixCache(context, n_slots=sizes.n_slots, ram=ram) if shares and options.prefix_cache else NoSharing(),
        n_slots=sizes.n_slots,
        n_cells=sizes.n_cells if context.kv_unified else context.n_ctx_seq * sizes.n_slots,
        n_ctx=min(sizes.n_ctx, context.n_ctx_seq),
        budget=StepBudget(step_tokens, options.itl_target_ms / 1000),
        queue_size=options.queue_size,
        speculator=Speculator(guesser, _rows(sizes)) if options.speculate and shares else None,
    )
    check = options.check_integrity or _core.DEBUG
    engine = Engine(context, Batch(step_tokens), scheduler, check_integrity=check)
    template = ChatTemplate(model, options.chat_template or "")
    frontend = Frontend(model, template, n_ctx=scheduler.n_ctx)
    return Loaded(model, context, engine, frontend, sizes, device, layers, threads, notes + sizes.notes)


def can_cut(context: Context, capacity: int) -> bool:
    """Whether the model's memory can drop the end of a sequence: found out by trying, and a warm-up besides."""
    batch = Batch(capacity)
    token = max(context.model.vocab.bos, 0)
    n = min(4, capacity)
    batch.add(0, [token] * n, 0, n)
    context.step(batch)
    cut = n > 1 and context.remove(0, 1) and context.length(0) == 1
    context.clear()
    return cut


def _load_model(
    options: EngineOptions, progress: Callable[[float], None] | None, notes: list[str]
) -> tuple[Model, int, str]:
    """(model, layers on the GPU, name of the device)."""
    gpus = [d for d in _core.devices() if d["kind"] in ("gpu", "igpu")]
    if options.gpu_layers == 0 or not gpus:
        if options.gpu_layers and not gpus:
            notes.append("no GPU that this build can use: the CPU computes everything")
        return _open(options, 0, progress), 0, "CPU"
    gpu = gpus[min(options.main_gpu, len(gpus) - 1)]
    layers = choose_gpu_layers(
        n_layers=_layers_in_header(options.model),
        model_bytes=Path(options.model).stat().st_size,
        gpu_free=gpu["memory_free"],
        wanted=options.gpu_layers,
    )
    try:
        return _open(options, layers, progress), layers, gpu["description"]
    except MinervaError as e:
        if layers == 0:
            raise
        log.warning("the GPU cannot hold the model (%s)", e)
        notes.append(f"{gpu['description']} cannot hold the model: the CPU computes everything")
        return _open(options, 0, progress), 0, "CPU"


def _layers_in_header(path: str) -> int:
    """Without the weights llama.cpp fills in no hyperparameters, but it knows the metadata."""
    header = Model(path, vocab_only=True)
    return int(header.metadata(f"{header.metadata('general.architecture')}.block_count") or 0)


def _open(options: EngineOptions, layers: int, progress: Callable[[float], None] | None) -> Model:
    return Model(
        options.model,
        gpu_layers=layers,
        main_gpu=options.main_gpu,
        mmap=options.mmap,
        mlock=options.mlock,
        check_tensors=options.check_tensors,
        progress=progress,
    )


def _make_context(model: Model, options: EngineOptions, sizes: Sizes, threads: int) -> Context:
    step_tokens = _step_tokens(options, sizes)
    return Context(
        model,
        n_ctx=sizes.n_cells,
        n_slots=sizes.n_slots,
        n_batch=step_tokens,
        n_ubatch=min(options.ubatch_size, step_tokens),
        threads=threads,
        threads_batch=options.threads_batch or threads,
        flash_attn=options.flash_attn,
        cache_type_k=options.cache_type_k,
        cache_type_v=options.cache_type_v,
        kv_unified=options.kv_unified is not False,
        n_outputs_max=_rows(sizes),
        rope_scaling=options.rope_scaling,
        rope_freq_base=options.rope_freq_base,
        rope_freq_scale=options.rope_freq_scale,
        yarn_orig_ctx=options.yarn_orig_ctx,
    )


def _step_tokens(options: EngineOptions, sizes: Sizes) -> int:
    """The most tokens of one step: what was asked for, but a token for every slot at least."""
    return min(max(options.batch_size, _rows(sizes)), sizes.n_cells)


def _rows(sizes: Sizes) -> int:
    """Rows of one step that may have logits: a token for each slot, or fewer of them and guesses."""
    return max(sizes.n_slots, MIN_ROWS)


def _kv_bytes(model: Model, options: EngineOptions) -> int:
    """Bytes of KV cache per token, from the metadata; 1 for a model that keeps no attention cache."""
    arch = model.metadata("general.architecture")

    def number(key: str, default: int) -> int:
        try:
            return int(model.metadata(f"{arch}.{key}") or default)
        except ValueError:
            return default

    if model.is_recurrent:
        return 1
    heads = number("attention.head_count", 1)
    kv_heads = number("attention.head_count_kv", heads)
    head_size = model.n_embd // max(heads, 1)
    k = number("attention.key_length", head_size) * TYPE_BYTES[options.cache_type_k]
    v = number("attention.value_length", head_size) * TYPE_BYTES[options.cache_type_v]
    return max(1, int(model.n_layer * kv_heads * (k + v)))
