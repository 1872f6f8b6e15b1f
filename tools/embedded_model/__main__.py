"""python -m tools.embedded_model corpus | train | export | evaluate"""

import argparse
import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path

CHECKPOINT = Path("/tmp/minerva-tiny")
OUTPUT = Path("minerva/assets/minerva-tiny.gguf")


def main() -> int:
    """Run one subcommand; `evaluate` exits 1 below `--minimum`."""
    parser = argparse.ArgumentParser(prog="python -m tools.embedded_model", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    corpus = commands.add_parser("corpus", help="print conversations of the training text, one JSON object a line")
    corpus.add_argument("--count", type=int, default=20)
    corpus.add_argument("--seed", type=int, default=1)

    train = commands.add_parser("train", help="train from scratch")
    train.add_argument("--folder", type=Path, default=CHECKPOINT, help="for the checkpoint (default %(default)s)")
    train.add_argument("--steps", type=int)
    train.add_argument("--simple", type=int, help="batches of single questions at the start")
    train.add_argument("--seed", type=int)
    train.add_argument("--on", type=Path, metavar="FOLDER", help="train on from an earlier checkpoint")
    train.add_argument("--threads", type=int, help="CPU threads")

    export = commands.add_parser("export", help="write the GGUF")
    export.add_argument("--folder", type=Path, default=CHECKPOINT)
    export.add_argument("--output", type=Path, default=OUTPUT)

    evaluate = commands.add_parser("evaluate", help="measure the answers to held-out wordings")
    evaluate.add_argument("--folder", type=Path, default=CHECKPOINT)
    evaluate.add_argument("--url", help="ask an OpenAI-compatible server instead, such as http://localhost:11434")
    evaluate.add_argument("--model", default="minerva-tiny", help="the model's name on that server")
    evaluate.add_argument("--split", choices=("dev", "test"), default="test")
    evaluate.add_argument("--failures", action="store_true", help="print every wrong answer")
    evaluate.add_argument("--minimum", type=float, default=0.9, help="share of right answers to reach")

    arguments = parser.parse_args()
    match arguments.command:
        case "corpus":
            return _corpus(arguments)
        case "train":
            return _train(arguments)
        case "export":
            from tools.embedded_model.export import export as write

            write(arguments.folder, arguments.output)
            return 0
        case _:
            return _evaluate(arguments)


def _corpus(arguments: argparse.Namespace) -> int:
    from tools.embedded_model.corpus import Corpus

    for conversation in itertools.islice(Corpus(arguments.seed), arguments.count):
        print(json.dumps(asdict(conversation)))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    import torch

    from tools.embedded_model.batches import Plan
    from tools.embedded_model.model import Shape
    from tools.embedded_model.train import train

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    given = {name: value for name in ("steps", "simple", "seed") if (value := getattr(arguments, name)) is not None}
    train(arguments.folder, Plan(**given), Shape(), arguments.on)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from tools.embedded_model.evaluate import checkpoint, evaluate, server

    model = server(arguments.url.rstrip("/"), arguments.model) if arguments.url else checkpoint(arguments.folder)
    return 0 if evaluate(model, arguments.split, arguments.failures) >= arguments.minimum else 1


if __name__ == "__main__":
    sys.exit(main())
