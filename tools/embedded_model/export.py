"""The checkpoint as a GGUF file of architecture `llama`."""

import json
from dataclasses import asdict
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer

from tools.embedded_model.chat import CONTROL_TOKENS, END_OF_TEXT, TEMPLATE, TOOL_TOKENS, TURN_END
from tools.embedded_model.model import Shape
from tools.embedded_model.train import load

NAMES = {
    "attention_norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.o": "attn_output",
    "ffn_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def tensor_name(name: str) -> str:
    """`blocks.0.gate.weight` as llama.cpp calls it: `blk.0.ffn_gate.weight`."""
    if name == "embedding.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    _, layer, rest = name.removesuffix(".weight").split(".", 2)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def export(folder: Path, output: Path) -> None:
    """Write the model of `folder` to `output`: matrices in F16, vectors in F32, output tied to the embedding."""
    model, tokenizer = load(folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(output), "llama")
    _describe(writer, model.shape, sum(p.numel() for p in model.parameters()))
    _vocabulary(writer, tokenizer)
    for name, weight in model.state_dict().items():
        data = weight.float().numpy()
        writer.add_tensor(tensor_name(name), data.astype(np.float16) if data.ndim == 2 else data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{output}: {output.stat().st_size} bytes, {asdict(model.shape)}")


def _describe(writer: gguf.GGUFWriter, shape: Shape, parameters: int) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("Minerva Tiny")
    writer.add_author("The Minerva project")
    writer.add_description("The model that answers in a fresh install of Minerva until a real one is loaded.")
    writer.add_license("mit")
    writer.add_size_label(f"{parameters / 1e6:.1f}M")
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)


def _vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = dict.fromkeys(CONTROL_TOKENS, gguf.TokenType.CONTROL)
    kinds |= dict.fromkeys(TOOL_TOKENS, gguf.TokenType.USER_DEFINED)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(vocabulary[END_OF_TEXT])
    writer.add_eos_token_id(vocabulary[TURN_END])
    writer.add_pad_token_id(vocabulary[END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
