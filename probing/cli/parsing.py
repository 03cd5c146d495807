"""The commands, with what each can be told."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from probing.cli import circuits, jobs, playground, results, scoring, zoo
from probing.cuts import Cut, Unit
from probing.errors import SelectionError, TaskError
from probing.extraction import SHARES, Best, Extraction
from probing.graph import Granularity
from probing.jobs import tasks
from probing.method import PAPERS, STEPS, Loss, Reference, Text
from probing.method import Path as MethodPath
from probing.rollouts import ALPHAS, CHOICES, DEFAULT_CUT, Criteria
from probing.transplant.units import DIRECTIONS, WHATS

_TOKENS = "cuts in tokens; answers with fewer stay whole"


def parser() -> argparse.ArgumentParser:
    """Of the whole command line; the command to run is its `run`."""
    top = _Parser(prog="python -m probing", description="Edge attributions of a model before and after tuning.")
    top.add_argument("--verbose", action="store_true", help="log what happens to stderr")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable, within: Any = commands) -> argparse.ArgumentParser:
        added = within.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        return added

    def granular(added: argparse.ArgumentParser) -> None:
        reads = "of an attention block: its projections apart, the block as one, or each head (default: %(default)s)"
        added.add_argument("--granularity", choices=get_args(Granularity), default="projections", help=reads)

    def methodical(added: argparse.ArgumentParser, text: bool = True) -> None:
        estimate = (
            "norm-exact takes norms as they are, eap-ig averages gradients, exact removes each edge "
            "(default: %(default)s, the paper's)"
        )
        added.add_argument("--method", choices=get_args(MethodPath), default=PAPERS.path, help=estimate)
        added.add_argument("--steps", type=_positive, help=f"of eap-ig (default: {STEPS})")
        measured(added)
        if text:
            whose = "what is scored: each model's own answers, or for both the base's, or another's"
            added.add_argument("--text", choices=get_args(Text), default=PAPERS.text, help=whose)

    def measured(added: argparse.ArgumentParser) -> None:
        loss = "what is differentiated (default: %(default)s; the margin does not vanish as a model grows sure)"
        added.add_argument("--loss", choices=get_args(Loss), default=PAPERS.loss, help=loss)
        instead = "what stands in for what is removed; patch: what is written on a counterpart (default: %(default)s)"
        added.add_argument("--reference", choices=get_args(Reference), default=PAPERS.reference, help=instead)
        granular(added)

    def computing(added: argparse.ArgumentParser) -> None:
        pickled = "allow pickled weights, which can run code when read"
        added.add_argument("--pickled", action="store_true", help=pickled)
        added.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        numbers = (
            "auto: float32; on a GPU models answer in their own dtype, and are scored in it if float32 is too large"
        )
        added.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help=numbers)

    def stored(added: argparse.ArgumentParser) -> None:
        added.add_argument("--store", type=Path, help="default: PROBING_STORE, or data/store.duckdb")

    def run_on_sequences(added: argparse.ArgumentParser) -> None:
        added.add_argument("model", metavar="MODEL", help="a folder, a .gguf file, package:NAME/FILE.gguf, or a hub id")
        added.add_argument("--revision", help="of a hub id")
        added.add_argument("--sequences", type=Path, required=True, metavar="FILE.jsonl")
        added.add_argument("--batch-size", type=_batch_size, default=None, metavar="N|auto")
        added.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
        computing(added)

    c = command("attribute", scoring.attribute)
    run_on_sequences(c)
    c.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    methodical(c, text=False)

    c = command("ablate", scoring.ablate)
    run_on_sequences(c)
    c.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    which = "all, names such as 'm2->a5<q>', or files with a name in each line (default: all)"
    c.add_argument("--edges", nargs="+", default=["all"], metavar="EDGE", help=which)
    measured(c)

    c = command("circuit", circuits.circuit)
    run_on_sequences(c)
    c.add_argument("--scores", type=Path, required=True, metavar="SCORES.npz", help="of this model or of another")
    order = "the best edges anywhere, or grown from the logits (default: %(default)s)"
    c.add_argument("--extract", choices=get_args(Extraction), default="top", help=order)
    c.add_argument("--by", choices=get_args(Best), default="magnitude", help="what is best (default: %(default)s)")
    sizes = f"sizes, as shares of all edges; default: {' '.join(f'{share:g}' for share in SHARES)}"
    c.add_argument("--keep", type=_share, nargs="+", default=list(SHARES), metavar="SHARE", help=sizes)
    stands_in = "what stands in for the edges outside (default: that of the scores)"
    c.add_argument("--reference", choices=get_args(Reference), help=stands_in)
    of = "what f is a share of (default: %(default)s)"
    c.add_argument("--loss", choices=get_args(Loss), default="margin", help=of)
    c.add_argument(
        "--random", type=_count, default=5, metavar="N", help="random circuits beside (default: %(default)s)"
    )
    c.add_argument("--seed", type=_count, default=0, help="of the random circuits (default: %(default)s)")
    c.add_argument("--json", action="store_true")

    c = command("compare", scoring.compare)
    c.add_argument("base", type=Path, metavar="BASE.npz")
    c.add_argument("tuned", type=Path, metavar="TUNED.npz")
    c.add_argument("--json", action="store_true")
    c.add_argument("--bins", type=_positive, default=100)
    ends = "where its bins end: a number, mean (100 mean |scores|; default), observed (the largest, as in the paper)"
    c.add_argument("--histogram-max", type=_histogram_max, default="mean", metavar="N|mean|observed", help=ends)
    c.add_argument("--edges-only", action="store_true", help="do not count structural zeros as cells")
    c.add_argument("--resamples", type=_positive, default=10_000)
    c.add_argument("--own-answers", action="store_true", help="the models' vocabularies may differ")

    c = command("convert", scoring.convert)
    c.add_argument("file", type=Path, metavar="FILE", help="a .pt, .json, .npz, .csv or .parquet")
    c.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="a .json, .pt, .graphml, .csv, .parquet or .npz"
    )
    c.add_argument("--top", type=_positive, metavar="N", help="the circuit is the N edges with the largest |score|")
    c.add_argument("--width", type=_positive, metavar="N", help="the model's, which EAP-IG's cfg calls d_model")

    c = command("pairs", results.pairs)
    c.add_argument("--json", action="store_true")

    c = command("probe", jobs.probe)
    c.add_argument("pair", metavar="PAIR")
    cuts = f"cuts, as shares of the mean answer length; default: {' '.join(map(str, ALPHAS))}"
    c.add_argument("--alpha", dest="cuts", type=_share_cut, nargs="+", action="extend", metavar="SHARE", help=cuts)
    c.add_argument("--tokens", dest="cuts", type=_tokens_cut, nargs="+", action="extend", metavar="N", help=_TOKENS)
    c.add_argument("--questions", metavar="NAME", help="default: the pair's first question set")
    default = Criteria()
    c.add_argument("--samples", type=_positive, default=default.n, help="questions drawn (default: %(default)s)")
    c.add_argument("--cohort", choices=CHOICES, default=default.cohort, help="by who is right (default: %(default)s)")
    c.add_argument("--seed", type=int, default=default.seed, help="of the draw (default: %(default)s)")
    c.add_argument("--beta", type=float, default=default.beta, help="shortest answers, in T̄ (default: %(default)s)")
    c.add_argument("--gamma", type=float, default=default.gamma, help="longest answers, in T̄ (default: %(default)s)")
    c.add_argument("--delta", type=float, default=default.delta, help="largest gap in length (default: %(default)s)")
    rule = "T̄: the smaller of the two models' mean lengths, or their mean (default: %(default)s)"
    c.add_argument("--mean-length", choices=("min", "mean"), default=default.mean_length, help=rule)
    c.add_argument("--rollouts", type=Path, metavar="FILE.jsonl", help="use these answers instead of generating any")
    for side in ("base", "tuned"):
        served = f"an OpenAI-compatible server that answers for the {side} model (URL#NAME: by that name there)"
        c.add_argument(f"--served-{side}", metavar="URL", default="auto", help=served)
    c.add_argument("--ungraded", action="store_true", help="all of that file's questions belong to --cohort")
    more = f"measure more: {', '.join(tasks.KINDS)}, with settings as ablation:strongest=50,random=100"
    c.add_argument("--also", nargs="+", type=_tasks, default=[], metavar="KIND", help=more)
    c.add_argument("--dry-run", action="store_true", help="say what would be done, without loading any weights")
    c.add_argument("--detach", action="store_true", help="queue the job and return; a worker does it")
    head = "spread it over the actors of the Ray cluster at this address, or of one on this machine"
    c.add_argument("--ray", metavar="ADDRESS|local", help=head)
    each = "of --ray (default: one for each GPU, or for each core where there is none)"
    c.add_argument("--actors", type=_positive, metavar="N", help=each)
    methodical(c)
    computing(c)
    stored(c)

    c = command("transplant", jobs.transplant)
    c.add_argument("pair", metavar="PAIR")
    c.add_argument("--what", choices=WHATS, help="default: both")
    c.add_argument("--direction", choices=(*DIRECTIONS, "both"), default="both", help="default: %(default)s")
    c.add_argument("--questions", metavar="NAME", help="default: the pair's first question set")
    c.add_argument("--samples", type=_positive, metavar="N", help="questions drawn (default: all)")
    c.add_argument("--json", action="store_true")
    c.add_argument("--dry-run", action="store_true", help="say what would be done, without loading any weights")
    c.add_argument("--detach", action="store_true", help="queue the job and return; a worker does it")
    granular(c)
    computing(c)
    stored(c)

    c = command("forecast", jobs.forecast)
    c.add_argument("spec", metavar="JSON", nargs="?")
    stored(c)

    stored(command("prepare", jobs.prepare))

    c = command("jobs", jobs.jobs)
    c.add_argument("--json", action="store_true")
    stored(c)

    c = command("cancel", jobs.cancel)
    c.add_argument("job", type=int, metavar="JOB")
    stored(c)

    c = command("rollouts", results.rollouts)
    c.add_argument("pair", metavar="PAIR")
    c.add_argument("--questions", metavar="NAME", help="default: the pair's first question set")
    c.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    stored(c)

    c = command("runs", results.runs)
    c.add_argument("--json", action="store_true")
    stored(c)

    c = command("report", results.report)
    c.add_argument("pairs", nargs="+", metavar="PAIR")
    c.add_argument("--cohort", choices=CHOICES, default="both_correct")
    methodical(c)
    stored(c)

    c = command("evidence", results.evidence)
    c.add_argument("pairs", nargs="+", metavar="PAIR")
    cut = c.add_mutually_exclusive_group()
    share = "the cut, as a share of the mean answer length (default: %(default)s)"
    cut.add_argument("--alpha", dest="cut", type=_share_cut, default=DEFAULT_CUT, metavar="SHARE", help=share)
    cut.add_argument("--tokens", dest="cut", type=_tokens_cut, metavar="N", help=_TOKENS)
    c.add_argument("--cohort", choices=CHOICES, default="both_correct")
    stored(c)

    c = command("export", results.export)
    c.add_argument("run_key", metavar="RUN")
    c.add_argument("--format", choices=("parquet", "csv", "npz"), default="parquet")
    c.add_argument("--out", type=Path)
    stored(c)

    c = command("worker", jobs.worker)
    c.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # given to the process that is watched
    stored(c)

    c = command("playground", playground.serve)
    c.add_argument("--allow-large", action="store_true", help="answer with any pair, not only with small ones")

    c = command("snapshot", results.snapshot)
    c.add_argument("--out", type=Path, metavar="FILE", help="default: a new file in the folder *.snapshots beside it")
    stored(c)

    c = command("restore", results.restore)
    c.add_argument("snapshot", type=Path, metavar="FILE")
    stored(c)

    small = commands.add_parser("zoo", help="the small models that ship").add_subparsers(
        required=True, metavar="COMMAND"
    )
    c = command("train", zoo.train, small)
    c.add_argument("--out", type=Path, help="default: data/zoo")
    c.add_argument("--only", nargs="+", metavar="MEMBER", help="default: all")
    c = command("evaluate", zoo.evaluate, small)
    c.add_argument("--json", action="store_true")
    c.add_argument("--zoo", type=Path, help="default: data/zoo")
    return top


class _Parser(argparse.ArgumentParser):
    """One sentence on stderr, without the usage before it."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}. See '{self.prog} --help'.\n")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no share from 0 to 1")
    return value


def _share_cut(text: str) -> Cut:
    return _cut(float, text, "alpha")


def _tokens_cut(text: str) -> Cut:
    return _cut(int, text, "tokens")


def _cut(read: Callable[[str], float], text: str, unit: Unit) -> Cut:
    try:
        return Cut(read(text), unit)
    except (ValueError, SelectionError) as error:
        needed = "a share above 0, up to 1" if unit == "alpha" else "a number of tokens"
        raise argparse.ArgumentTypeError(f"'{text}' is not {needed}") from error


def _histogram_max(text: str) -> float | str:
    if text in ("mean", "observed"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number above 0 nor mean nor observed")
    return value


def _tasks(text: str) -> tuple[tasks.Task, ...]:
    try:
        return tasks.parse(text)
    except TaskError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else _positive(text)
