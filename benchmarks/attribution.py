"""Attribution against a bare forward and backward pass.

`python -m benchmarks.attribution [--granularity G] [--method M] [--json]`: both are measured in one run on one thread,
alternating, on a Llama of SmolLM2-135M's shape with random weights (30 layers, width 576, 9 heads, 3 key/value heads),
one sequence of 77 tokens, float32. "Bare" is the loss of the same answer tokens and its gradient at the embedding, with
frozen weights and logits for the answer alone: the least that any gradient method must do. With `--method` another
estimate than the paper's stands beside both. Peak memory is the largest resident size of a process of its own for each,
weights included; below it stands what that process grew by over the loaded model. `--quick` uses a small model.
"""

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import psutil
import torch
from transformers import LlamaForCausalLM

from benchmarks.shape import ANSWER, model_of_shape, sample_for
from probing.attribution import Attributor
from probing.graph import Granularity
from probing.method import ESTIMATES, PAPERS, Method
from probing.sequences import Sample


def _bare(model: LlamaForCausalLM, sample: Sample) -> Callable[[], object]:
    targets = torch.tensor(sample.scored)

    def run() -> None:
        embedded = model.get_input_embeddings()(torch.tensor([sample.fed])).requires_grad_()
        logits = model(inputs_embeds=embedded, use_cache=False, logits_to_keep=ANSWER).logits
        torch.nn.functional.cross_entropy(logits[0].float(), targets).backward()

    return run


def _runs(model: LlamaForCausalLM, sample: Sample, how: Method) -> dict[str, Callable[[], object]]:
    attributor = Attributor(model, how.granularity)
    runs: dict[str, Callable[[], object]] = {"bare": _bare(model, sample), "ours": lambda: attributor.score([sample])}
    if how.path != PAPERS.path:
        runs[how.path] = lambda: attributor.score([sample], how)
    return runs


def _peak(which: str, quick: bool, how: Method) -> tuple[float, float]:
    """Peak resident memory of a fresh process that runs one of them, and what it grew by, in MiB (Linux)."""
    command = [sys.executable, "-m", "benchmarks.attribution", "--memory-of", which, "--granularity", how.granularity]
    command += ["--method", how.path, *(["--quick"] if quick else [])]
    peak, loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(peak), float(peak) - float(loaded)


def _print_memory(which: str, quick: bool, how: Method) -> None:
    torch.set_num_threads(1)
    model = model_of_shape(quick)
    sample = sample_for(model)
    run = _runs(model, sample, how)[which]
    with torch.no_grad():  # touch the weights and the kernels' workspace, which both need
        model(input_ids=torch.tensor([[1]]))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what loading left behind is not to be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    loaded = psutil.Process().memory_info().rss
    for _ in range(3):
        run()
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    print(peak / 1024, loaded / 2**20)


def measure(quick: bool, how: Method = PAPERS, repeats: int = 5) -> dict[str, float]:
    """Median seconds and peak MiB of each, and their ratios."""
    torch.set_num_threads(1)
    model = model_of_shape(quick)
    sample = sample_for(model)
    runs = _runs(model, sample, how)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if repeat:  # the first is a warm-up
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    memory = {name: _peak(name, quick, how) for name in runs}
    other = {}
    if how.path in runs:
        other = {
            "method_seconds": median[how.path],
            "method_over_ours": median[how.path] / median["ours"],
            "method_memory_over_ours": memory[how.path][0] / memory["ours"][0],
        }
    return {
        **other,
        "bare_seconds": median["bare"],
        "ours_seconds": median["ours"],
        "time_ratio": median["ours"] / median["bare"],
        "bare_peak_mib": memory["bare"][0],
        "ours_peak_mib": memory["ours"][0],
        "memory_ratio": memory["ours"][0] / memory["bare"][0],
        "bare_activation_mib": memory["bare"][1],
        "ours_activation_mib": memory["ours"][1],
    }


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attribution", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a small model")
    parser.add_argument("--granularity", choices=get_args(Granularity), default="projections")
    parser.add_argument("--method", choices=ESTIMATES, default=PAPERS.path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    how = Method(arguments.granularity, arguments.method)
    if arguments.memory_of:
        _print_memory(arguments.memory_of, arguments.quick, how)
        return
    m = measure(arguments.quick, how)
    if arguments.json:
        print(json.dumps(m, indent=2))
        return
    print(f"{'':24}{'bare':>10}{'ours':>10}{'ratio':>8}")
    print(f"{'seconds':24}{m['bare_seconds']:>10.3f}{m['ours_seconds']:>10.3f}{m['time_ratio']:>8.3f}")
    print(f"{'peak memory, MiB':24}{m['bare_peak_mib']:>10.0f}{m['ours_peak_mib']:>10.0f}{m['memory_ratio']:>8.3f}")
    print(f"{'  beyond the model, MiB':24}{m['bare_activation_mib']:>10.0f}{m['ours_activation_mib']:>10.0f}")
    if "method_over_ours" in m:
        ratio, memory = m["method_over_ours"], m["method_memory_over_ours"]
        print(f"{how.path} takes {m['method_seconds']:.3f} s: {ratio:.2f} × ours, and {memory:.2f} × its memory")


if __name__ == "__main__":
    main()
