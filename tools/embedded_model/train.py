"""Training: next-token loss on the assistant's words only, Muon and AdamW, warm-up and cosine decay."""

import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from tools.embedded_model.batches import Plan, batches
from tools.embedded_model.model import Llama, Shape
from tools.embedded_model.tokenizer import load_tokenizer, train_tokenizer

LOG_EVERY, SAVE_EVERY = 50, 250


def train(folder: Path, plan: Plan, shape: Shape, earlier: Path | None = None) -> None:
    """Train from scratch, or on from the weights in `earlier`; save `tokenizer.json` and `model.pt` in `folder`."""
    torch.manual_seed(plan.seed)
    folder.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Llama(shape, plan.dropout)
    if earlier:
        before, tokenizer = load(earlier)
        model.load_state_dict(before.state_dict())
    else:
        tokenizer = train_tokenizer(plan.seed)
    tokenizer.save(str(folder / "tokenizer.json"))
    model.to(device)
    optimisers = _optimisers(model, plan)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {plan}", flush=True)
    started, seen, conversations, total, opening = time.monotonic(), 0, 0, 0.0, 0.0
    for step, (inputs, targets) in enumerate(batches(plan, tokenizer, shape.context), 1):
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = group["peak"] * _schedule(step, plan)
        inputs, targets = inputs.to(device), targets.to(device)
        with torch.autocast(device, torch.bfloat16):
            logits = model.logits(model(inputs)[targets >= 0])
        losses = F.cross_entropy(logits.float(), targets[targets >= 0], reduction="none")
        loss = losses.mean()
        first = (targets >= 0) & (F.pad(targets, (1, -1), value=-100) < 0)
        opening += losses.detach()[first[targets >= 0]].mean().item()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        seen, conversations, total = seen + inputs.numel(), conversations + len(inputs), total + loss.item()
        if step % LOG_EVERY == 0:
            rate = seen / (time.monotonic() - started)
            losses_so_far = f"loss {total / LOG_EVERY:.4f} first words {opening / LOG_EVERY:.4f}"
            print(f"step {step} {losses_so_far} conversations {conversations} tokens {seen} ({rate:.0f}/s)", flush=True)
            total = opening = 0.0
        if step % SAVE_EVERY == 0 or step == plan.steps:
            torch.save({"shape": asdict(shape), "weights": model.state_dict()}, folder / "model.pt")
        if step == plan.steps:
            print(f"done in {time.monotonic() - started:.0f} s", flush=True)
            return


def _optimisers(model: Llama, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms."""
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    adam = torch.optim.AdamW(rest, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.0)
    muon = torch.optim.Muon(matrices, lr=plan.muon_rate, weight_decay=plan.decay, adjust_lr_fn="original")
    for optimiser, peak in ((adam, plan.rate), (muon, plan.muon_rate)):
        for group in optimiser.param_groups:
            group["peak"] = peak
    return [adam, muon]


def _schedule(step: int, plan: Plan) -> float:
    if step < plan.warmup:
        return step / plan.warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - plan.warmup) / max(1, plan.steps - plan.warmup)))


def load(folder: Path) -> tuple[Llama, Tokenizer]:
    """The model and the tokenizer that `train` left in `folder`."""
    saved = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
    model = Llama(Shape(**saved["shape"]))
    model.load_state_dict(saved["weights"])
    return model.eval(), load_tokenizer(folder / "tokenizer.json")
