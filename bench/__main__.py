"""python -m bench [--quick] [--workloads single,four,sixteen] [--runs N] [--model base|tiny|FILE]"""

import argparse
import importlib.util
import os
import shutil
import time
from pathlib import Path

from rich.console import Console

from bench.measure import Limits
from bench.report import Report
from bench.subjects import Setup, Subject, subjects
from bench.workloads import WORKLOADS, Workload

MODELS = Path(os.environ.get("MINERVA_BENCH_MODELS", "/tmp/models"))


def model_file(name: str) -> Path:
    """A path as it is; a shape's name as a random model of that shape, written once."""
    if Path(name).is_file():
        return Path(name)
    path = MODELS / f"{name}.gguf"
    if not path.is_file():
        from tools.random_model import write_model

        MODELS.mkdir(parents=True, exist_ok=True)
        write_model(path, shape=name, arch="qwen3", qtype="q4_0", vocab="qwen2")
    return path


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="bench", description="Minerva beside llama-server and the raw C loop.")
    p.add_argument("--workloads", default="single,four,sixteen", help=f"of {', '.join(WORKLOADS)}; or all")
    p.add_argument("--runs", type=int, help="interleaved runs, medians are reported (default: 3; with --quick 1)")
    p.add_argument("--quick", action="store_true", help="fewer requests: shows that all works, measures little")
    p.add_argument("--model", default="base", help="a shape of tools.random_model, or a GGUF file")
    p.add_argument("--subjects", default="", help="of harness, minerva, llama-server (default: those found)")
    p.add_argument("--llama-server", default=os.environ.get("LLAMA_SERVER") or shutil.which("llama-server"))
    p.add_argument("--harness", default=os.environ.get("MINERVA_HARNESS") or _installed_harness())
    p.add_argument("--minerva-arg", action="append", default=[], help="passed on to minerva.serve; repeatable")
    p.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    p.add_argument("--temperature", type=float, default=0.0)
    p.add_argument("--ttft-limit", type=float, default=Limits().ttft, help="seconds, for goodput")
    p.add_argument("--tpot-limit", type=float, default=Limits().tpot, help="seconds, for goodput")
    p.add_argument("--seed", type=int, default=None, help="default: the time, so that no prompt is seen twice")
    p.add_argument("--json", type=Path, default=None, help="default: bench-results/TIME.json")
    return p.parse_args()


def _installed_harness() -> str | None:
    spec = importlib.util.find_spec("minerva")
    for place in spec.submodule_search_locations or () if spec else ():
        if (path := Path(place) / "bin" / "minerva-harness").is_file():
            return str(path)
    return shutil.which("minerva-harness")


def run_all(report: Report, work: list[Workload], found: list[Subject], runs: int, seed: int, console: Console) -> None:
    """Every subject in turn on one workload, so that what drifts on the machine drifts for all of them."""
    for run in range(runs):
        for index, workload in enumerate(work):
            order = [s for s in found if s.runs(workload)]
            shift = run % max(len(order), 1)  # nobody is always first on a cold machine
            for subject in order[shift:] + order[:shift]:
                try:
                    figures = subject.run(workload, seed + 1000 * run + index)
                except Exception as e:  # one subject's failure must not lose the others' figures
                    report.failures.append(f"run {run + 1} {workload.name} {subject.name}: {e}")
                    console.print(f"[red]{report.failures[-1]}[/red]", highlight=False)
                    continue
                report.add(workload, subject.name, figures)
                line = f"run {run + 1}/{runs} {workload.name:14} {subject.name:22} {figures.score:8.2f} "
                note = f" errors {figures.errors}: {figures.first_error}" if figures.errors else ""
                console.print(line + workload.metric.value + note, highlight=False, markup=False)


def main() -> None:
    args = parse()
    console = Console(width=max(Console().width, 180))
    names = list(WORKLOADS) if args.workloads == "all" else args.workloads.split(",")
    work = [WORKLOADS[n].quick() if args.quick else WORKLOADS[n] for n in names]
    setup = Setup(
        model=model_file(args.model),
        threads=args.threads,
        temperature=args.temperature,
        limits=Limits(args.ttft_limit, args.tpot_limit),
        harness=args.harness,
        llama_server=args.llama_server,
        minerva=importlib.util.find_spec("minerva") is not None,
        minerva_args=tuple(args.minerva_arg),
    )
    found = subjects(setup, tuple(filter(None, args.subjects.split(","))))
    if not found:
        raise SystemExit("nothing to measure: give --llama-server or --harness, or install minerva")
    seed = args.seed if args.seed is not None else int(time.time())
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > 0.5 * cores:
        console.print(
            f"[yellow]load average {load:.1f} on {cores} cores: figures will be noise[/yellow]", highlight=False
        )
    measured = {"seed": seed, "model": str(setup.model), "load_average_before": load, "cores": cores}
    report = Report({k: str(v) for k, v in vars(args).items()} | measured)
    run_all(report, work, found, args.runs or (1 if args.quick else 3), seed, console)
    report.show(console)
    path = args.json or Path("bench-results") / time.strftime("%Y%m%d-%H%M%S.json")
    report.save(path)
    console.print(f"saved {path}", highlight=False)


if __name__ == "__main__":
    main()
