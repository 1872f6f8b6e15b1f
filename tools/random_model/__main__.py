"""python -m tools.random_model --shape base --arch qwen3 --type q4_0 --vocab qwen2 -o FILE"""

import argparse

from tools.random_model import ARCHITECTURES, QTYPES, SHAPES, write_model


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools.random_model", description="Write a random-weight GGUF model.")
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="qwen3")
    parser.add_argument("--type", choices=QTYPES, default="q4_0", dest="qtype")
    parser.add_argument("--vocab", default="qwen2", help="the name in models/ggml-vocab-NAME.gguf (default: qwen2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--any-text", action="store_true", help="let control and partial UTF-8 tokens be as likely")
    parser.add_argument("--llama-dir", help="the llama.cpp tree (default: $MINERVA_LLAMA_CPP_DIR, else the vendored)")
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    path = write_model(
        args.output,
        shape=args.shape,
        arch=args.arch,
        qtype=args.qtype,
        vocab=args.vocab,
        seed=args.seed,
        plain_text=not args.any_text,
        llama_dir=args.llama_dir,
    )
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
