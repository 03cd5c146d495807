"""The product's work from a terminal: `python -m probing --help`.

An error that a person can cause is one sentence on stderr and exit code 2. Heavy imports wait for the command that
needs them, so that `--help` and listings answer at once.
"""

import argparse
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from probing import logs
from probing.errors import PersonError, ScoresError, StoreError
from probing.graph import Granularity
from probing.pairs import Registry, load_registry
from probing.rollouts import ALPHAS, COHORTS, Criteria
from probing.store import Store, open_store
from probing.store.sharing import move

if TYPE_CHECKING:
    from probing.jobs.plan import Plan, Spec

LABELS = {
    "activation_intensity": "activation intensity",
    "information_complexity": "information complexity",
    "distribution_kurtosis": "distribution kurtosis",
    "inter_sample_diversity": "inter-sample diversity",
    "node_output_entropy": "node output entropy",
    "loss": "loss (nats per token)",
    "effective_edges": "effective edges",
    "gini": "Gini coefficient",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        logs.set_up(arguments.verbose)
        arguments.run(arguments)
    except PersonError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; what was finished is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    return 0


# -- commands ----------------------------------------------------------------------------------------------------------


def attribute(arguments: argparse.Namespace) -> None:
    """Score the edges of one model over a file of sequences."""
    from probing.attribution import Attributor
    from probing.attribution import attribute as score
    from probing.checkpoints import find
    from probing.jobs.numerics import numerics_of
    from probing.models import DTYPES, load_model, load_tokenizer, pick_device, use_threads_for, vocabulary_digest
    from probing.scores import write_scores
    from probing.sequences import read_samples

    samples = read_samples(arguments.sequences)
    checkpoint = find(arguments.model, arguments.revision, arguments.pickled)
    how = numerics_of(arguments.device, arguments.dtype, arguments.attention, [checkpoint])
    device = pick_device(how.device)
    model = load_model(checkpoint, device, DTYPES[how.scores], how.attention)
    use_threads_for(model)
    with _progress() as progress:
        scores = score(
            Attributor(model, arguments.granularity),
            samples,
            arguments.batch_size,
            lambda done: progress("edges", done, len(samples)),
        )
    write_scores(arguments.out, replace(scores, tokenizer=vocabulary_digest(load_tokenizer(checkpoint))))
    print(f"{arguments.out}: {len(samples)} samples, {scores.graph.size} edges, {device}, {model.dtype}")


def compare(arguments: argparse.Namespace) -> None:
    """Compare two files of scores."""
    from probing import metrics
    from probing.scores import read_scores

    base, tuned = read_scores(arguments.base), read_scores(arguments.tuned)
    if base.tokenizer and tuned.tokenizer and base.tokenizer != tuned.tokenizer and not arguments.own_answers:
        raise ScoresError(
            "The two files were made by models with different vocabularies, so their tokens do not stand for the same.",
            "If each model was scored on its own answers, say so with --own-answers: edges can still be compared.",
        )
    definition = metrics.Definition(
        bins=arguments.bins,
        histogram_max=arguments.histogram_max,
        structural_zeros=not arguments.edges_only,
        resamples=arguments.resamples,
    )
    result = metrics.compare(base, tuned, definition)
    if arguments.json:
        print(json.dumps(metrics.as_json(result, definition, base, metrics.align(base, tuned)), indent=2))
        return
    print(f"{'':26}{'base':>12}{'tuned':>12}{'difference':>12}   95 % interval")
    for name, c in result.items():
        interval = f"[{c.ci_low:.4g}, {c.ci_high:.4g}]"
        print(f"{LABELS[name]:26}{c.base:>12.4g}{c.tuned:>12.4g}{c.difference:>+12.4g}   {interval}")
    print(f"\nThe interval of complexity is one of {metrics.interval_of('information_complexity', definition)}.")


def pairs(arguments: argparse.Namespace) -> None:
    """List the pairs."""
    registry = load_registry()
    if arguments.json:
        rows = [pair.model_dump(mode="json") for pair in registry.pairs.values()]
        print(json.dumps(rows, indent=2))
        return
    for pair in registry.pairs.values():
        print(f"{pair.name:12} {pair.algorithm:6} {pair.kind:12} {pair.model_name('base')} -> "
              f"{pair.model_name('tuned')}  ({', '.join(pair.questions)})")  # fmt: skip


def probe(arguments: argparse.Namespace) -> None:
    """Do all that a pair's comparison needs, or watch the worker that is doing it."""
    from probing.jobs.plan import Spec

    registry = load_registry()
    pair = registry.pair(arguments.pair)
    spec = Spec(
        pair.name,
        arguments.questions or pair.questions[0],
        tuple(arguments.alpha or ALPHAS),
        Criteria(
            beta=arguments.beta,
            gamma=arguments.gamma,
            delta=arguments.delta,
            n=arguments.samples,
            seed=arguments.seed,
            mean_length=arguments.mean_length,
            cohort=arguments.cohort,
        ),
        arguments.device,
        arguments.dtype,
        pickled=arguments.pickled,
        granularity=arguments.granularity,
    )
    spec.selections()  # refuses cuts that make no sense before anything is queued
    if arguments.dry_run:
        _print_forecast(spec, registry, arguments)
    else:
        _probe(spec, registry, arguments)


def forecast(arguments: argparse.Namespace) -> None:
    """Say what a job would take, given as the store keeps it: every setting of it counts."""
    from probing.jobs.plan import Spec

    try:
        spec = Spec.from_json(json.loads(arguments.spec))
    except (ValueError, KeyError, TypeError) as error:
        raise PersonError("That is not the spec of a job.", "See 'python -m probing jobs --json' for some.") from error
    _print_forecast(spec, load_registry(), arguments)


def _print_forecast(spec: "Spec", registry: Registry, arguments: argparse.Namespace) -> None:
    from probing.jobs.forecast import forecast as lay_out
    from probing.store import default_path

    there = (arguments.store or default_path()).exists()
    with closing(_open(arguments)) if there else nullcontext() as store:
        for line in lay_out(spec, registry, store).lines():
            print(line)


def _probe(spec: "Spec", registry: Registry, arguments: argparse.Namespace) -> None:
    from probing.jobs.imports import import_rollouts
    from probing.jobs.numerics import make_plan
    from probing.jobs.plan import SIDES
    from probing.jobs.worker import do_all
    from probing.sameness import weights_note

    with closing(_open(arguments)) as store:
        if arguments.rollouts:
            with _progress() as progress:
                spec = import_rollouts(store, spec, registry, arguments.rollouts, arguments.ungraded, progress)
        plan = make_plan(spec, registry)
        if note := weights_note(*(plan.checkpoints[side] for side in SIDES)):
            print(note, file=sys.stderr)
        if arguments.detach:
            print(f"job {store.submit(spec.as_json())}; the dashboard's worker does it, or 'python -m probing worker'")
            return
        with _progress() as progress:
            do_all(store, [spec], progress)
        _print_comparisons(store, plan)


def prepare(arguments: argparse.Namespace) -> None:
    """Compute every pair whose models are here, as the dashboard does when it starts."""
    from probing.jobs.plan import shipped
    from probing.jobs.worker import do_all

    with closing(_open(arguments)) as store, _progress() as progress:
        do_all(store, shipped(load_registry()), progress)


def _print_comparisons(store: Store, plan: "Plan") -> None:
    from probing.metrics import compare as measure

    table = store.comparisons().set_index("comparison_key")
    for selection in plan.spec.selections():
        row = table.loc[plan.comparison_key(selection)]
        if isinstance(row["failure"], str):
            print(f"α {selection.alpha:g}: {row['failure']}")
            continue
        result = measure(store.scores(row["base_run"]), store.scores(row["tuned_run"]))
        intensity, loss = result["activation_intensity"], result["loss"]
        print(
            f"α {selection.alpha:g}: intensity {intensity.base:.3g} -> {intensity.tuned:.3g} "
            f"(difference {intensity.difference:+.3g}, 95 % interval {intensity.ci_low:+.3g} to "
            f"{intensity.ci_high:+.3g}), loss {loss.base:.3g} -> {loss.tuned:.3g}"
        )
        if isinstance(row["warning"], str):
            print(f"       {row['warning']}")


def rollouts(arguments: argparse.Namespace) -> None:
    """Write both models' newest answers to a file, in the columns of the paper's authors."""
    from probing.rollout_files import write_rollouts

    pair = load_registry().pair(arguments.pair)
    questions = arguments.questions or pair.questions[0]
    with closing(_open(arguments)) as store:
        table = store.comparisons()
        rows = table[(table["pair"] == pair.name) & (table["question_set"] == questions)]
        if rows.empty:
            raise StoreError(
                f"The store has no answers of {pair.name} to {questions}.",
                f"Run 'python -m probing probe {pair.name}'.",
            )
        base, tuned = (store.answers(rows.iloc[0][f"{side}_rollout"]) for side in ("base", "tuned"))
        texts = store.question_texts(rows.iloc[0]["base_rollout"])
    write_rollouts(arguments.out, texts, base, tuned)
    print(f"{arguments.out}: {len(base)} questions, both models' answers")


def jobs(arguments: argparse.Namespace) -> None:
    """List the jobs of a store, the newest first."""
    with closing(_open(arguments)) as store:
        table = store.jobs()
    if arguments.json:
        print(table.to_json(orient="records", date_format="iso", indent=2))
        return
    for row in table.itertuples():
        spec = json.loads(row.spec)
        cuts = " ".join(f"{alpha:g}" for alpha in spec.get("alphas", ()))
        far = f"{row.stage} {row.done}/{row.total}" if row.status == "running" else row.message
        print(f"{row.job_id:>5}  {row.status:10} {spec.get('pair', ''):12} {spec.get('questions', ''):14} α {cuts}  "
              f"{far}".rstrip())  # fmt: skip


def cancel(arguments: argparse.Namespace) -> None:
    """Cancel a job; what it has finished is kept."""
    with closing(_open(arguments)) as store:
        job = store.job(arguments.job)
        if job["status"] not in ("queued", "running"):
            raise StoreError(f"Job {arguments.job} is {job['status']} already.")
        store.close_job(arguments.job, "cancelled", "Cancelled.")
    print(f"job {arguments.job} cancelled; what it has finished is kept")


def runs(arguments: argparse.Namespace) -> None:
    """List the runs of a store."""
    with closing(_open(arguments)) as store:
        table = store.runs()
    if arguments.json:
        print(table.to_json(orient="records", date_format="iso", indent=2))
        return
    for row in table.itertuples():
        state = "finished" if isinstance(row.finished, datetime) else "unfinished"
        print(f"{row.run_key}  {row.pair:12} {row.side:6} {row.question_set:12} {row.cohort:13} α {row.alpha:<5g}"
              f"{row.scored:>5}/{row.samples} samples  {state}")  # fmt: skip


def report(arguments: argparse.Namespace) -> None:
    """Print what has been found about some pairs, as tables in Markdown."""
    from probing.report import report as lines

    with closing(_open(arguments)) as store:
        for line in lines(store, load_registry(), arguments.pairs, arguments.cohort, arguments.granularity):
            print(line)


def export(arguments: argparse.Namespace) -> None:
    """Write the scores of a run to a file."""
    from probing.scores import write_scores

    out = arguments.out or Path(f"{arguments.run_key}.{arguments.format}")
    with closing(_open(arguments)) as store:
        if arguments.format == "npz":
            write_scores(out, store.scores(arguments.run_key))
        else:
            store.scores(arguments.run_key)  # says so if there is no such run
            table = store.long_scores(arguments.run_key)
            part = out.with_name(f".{out.name}.part")
            try:
                if arguments.format == "csv":
                    table.to_csv(part, index=False)
                else:
                    table.to_parquet(part, index=False)
                part.replace(out)
            except OSError as error:
                raise StoreError(
                    f"Cannot write {out}: {error.strerror}.", "Choose another place with --out."
                ) from error
            finally:
                part.unlink(missing_ok=True)
    print(out)


def worker(arguments: argparse.Namespace) -> None:
    """Work on the queue of a store until stopped, in a process that is watched and started again when it dies."""
    with closing(_open(arguments)) as store:
        if arguments.parent is not None:
            from probing.jobs.worker import serve

            serve(store, arguments.parent)
        else:
            from probing.jobs.supervisor import Supervisor

            supervisor = Supervisor(store, log_to_file=False)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: supervisor.stop())
            supervisor.watch()


def snapshot(arguments: argparse.Namespace) -> None:
    """Copy the store as it is now to a file, also while it is in use."""
    if arguments.out is not None and arguments.out.exists():
        raise StoreError(f"{arguments.out} is there already.", "Name another file.")
    with closing(_open(arguments)) as store:
        made = store.snapshot()
    if arguments.out is not None:
        made = move(made, arguments.out)
    print(made)


def restore(arguments: argparse.Namespace) -> None:
    """Put a snapshot in the store's place; what was there is kept beside it."""
    from probing.store import default_path
    from probing.store.sharing import restore as put

    target = arguments.store or default_path()
    before = put(arguments.snapshot, target)
    print(f"{target} is now {arguments.snapshot}" + (f"; what was there is {before}" if before else ""))


def zoo_train(arguments: argparse.Namespace) -> None:
    """Train members of the zoo."""
    try:
        from probing.zoo.train import train_all
    except ImportError as error:
        raise PersonError(
            f"Training needs a package that is not installed ({error.name}).",
            "Run 'pip install -r requirements-zoo.txt'.",
        ) from error
    train_all(arguments.out, arguments.only)


def zoo_evaluate(arguments: argparse.Namespace) -> None:
    """Measure what the members of the zoo can do."""
    from probing.zoo.evaluate import evaluate

    result = evaluate(arguments.zoo)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{'':12}{'greedy':>8}{'sampled':>9}{'nll of correct':>16}")
    for name, row in result["accuracy"].items():
        print(f"{name:12}{row['greedy']:>8.3f}{row['sampled']:>9.3f}{result['nll_correct'][name]:>16.4f}")


# -- what commands share -----------------------------------------------------------------------------------------------


def _open(arguments: argparse.Namespace) -> Store:
    return open_store(arguments.store)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, renamed with each stage; nothing where stderr is no terminal."""
    from tqdm import tqdm

    with tqdm(disable=None, leave=False) as bar:

        def show(stage: str, done: int, total: int) -> None:
            bar.total = total
            bar.n = done
            bar.set_description(stage)

        yield show


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


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


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else _positive(text)


class _Parser(argparse.ArgumentParser):
    """One sentence on stderr, without the usage before it."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}. See '{self.prog} --help'.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m probing", description="Edge attributions of a model before and after tuning.")
    parser.add_argument("--verbose", action="store_true", help="log what happens to stderr")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable, within: Any = commands) -> argparse.ArgumentParser:
        added = within.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        return added

    def granular(added: argparse.ArgumentParser) -> None:
        reads = "what reads in an attention block: its projections apart, or the block as one (default: %(default)s)"
        added.add_argument("--granularity", choices=get_args(Granularity), default="projections", help=reads)

    def computing(added: argparse.ArgumentParser) -> None:
        pickled = "allow pickled weights, which can run code when read"
        added.add_argument("--pickled", action="store_true", help=pickled)
        added.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
        numbers = (
            "auto: float32; on a GPU models answer in their own dtype, and are scored in it if float32 is too large"
        )
        added.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help=numbers)
        granular(added)

    def stored(added: argparse.ArgumentParser) -> None:
        added.add_argument("--store", type=Path, help="default: PROBING_STORE, or data/store.duckdb")

    c = command("attribute", attribute)
    c.add_argument("model", metavar="MODEL", help="a folder, a .gguf file, package:NAME/FILE.gguf, or a hub id")
    c.add_argument("--revision", help="of a hub id")
    c.add_argument("--sequences", type=Path, required=True, metavar="FILE.jsonl")
    c.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    c.add_argument("--batch-size", type=_batch_size, default=None, metavar="N|auto")
    c.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    computing(c)

    c = command("compare", compare)
    c.add_argument("base", type=Path, metavar="BASE.npz")
    c.add_argument("tuned", type=Path, metavar="TUNED.npz")
    c.add_argument("--json", action="store_true")
    c.add_argument("--bins", type=_positive, default=100)
    ends = "where its bins end: a number, mean (100 mean |scores|; default), observed (the largest, as in the paper)"
    c.add_argument("--histogram-max", type=_histogram_max, default="mean", metavar="N|mean|observed", help=ends)
    c.add_argument("--edges-only", action="store_true", help="do not count structural zeros as cells")
    c.add_argument("--resamples", type=_positive, default=10_000)
    c.add_argument("--own-answers", action="store_true", help="the models' vocabularies may differ")

    c = command("pairs", pairs)
    c.add_argument("--json", action="store_true")

    c = command("probe", probe)
    c.add_argument("pair", metavar="PAIR")
    c.add_argument("--alpha", type=float, nargs="+", help=f"cuts; default: {' '.join(map(str, ALPHAS))}")
    c.add_argument("--questions", metavar="NAME", help="default: the pair's first question set")
    default = Criteria()
    c.add_argument("--samples", type=_positive, default=default.n, help="questions drawn (default: %(default)s)")
    c.add_argument("--cohort", choices=COHORTS, default=default.cohort, help="by who is right (default: %(default)s)")
    c.add_argument("--seed", type=int, default=default.seed, help="of the draw (default: %(default)s)")
    c.add_argument("--beta", type=float, default=default.beta, help="shortest answers, in T̄ (default: %(default)s)")
    c.add_argument("--gamma", type=float, default=default.gamma, help="longest answers, in T̄ (default: %(default)s)")
    c.add_argument("--delta", type=float, default=default.delta, help="largest gap in length (default: %(default)s)")
    rule = "T̄: the smaller of the two models' mean lengths, or their mean (default: %(default)s)"
    c.add_argument("--mean-length", choices=("min", "mean"), default=default.mean_length, help=rule)
    c.add_argument("--rollouts", type=Path, metavar="FILE.jsonl", help="use these answers instead of generating any")
    c.add_argument("--ungraded", action="store_true", help="all of that file's questions belong to --cohort")
    c.add_argument("--dry-run", action="store_true", help="say what would be done, without loading any weights")
    c.add_argument("--detach", action="store_true", help="queue the job and return; a worker does it")
    computing(c)
    stored(c)

    c = command("forecast", forecast)
    c.add_argument("spec", metavar="JSON")
    stored(c)

    stored(command("prepare", prepare))

    c = command("jobs", jobs)
    c.add_argument("--json", action="store_true")
    stored(c)

    c = command("cancel", cancel)
    c.add_argument("job", type=int, metavar="JOB")
    stored(c)

    c = command("rollouts", rollouts)
    c.add_argument("pair", metavar="PAIR")
    c.add_argument("--questions", metavar="NAME", help="default: the pair's first question set")
    c.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl")
    stored(c)

    c = command("runs", runs)
    c.add_argument("--json", action="store_true")
    stored(c)

    c = command("report", report)
    c.add_argument("pairs", nargs="+", metavar="PAIR")
    c.add_argument("--cohort", choices=COHORTS, default="both_correct")
    granular(c)
    stored(c)

    c = command("export", export)
    c.add_argument("run_key", metavar="RUN")
    c.add_argument("--format", choices=("parquet", "csv", "npz"), default="parquet")
    c.add_argument("--out", type=Path)
    stored(c)

    c = command("worker", worker)
    c.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # given to the process that is watched
    stored(c)

    c = command("snapshot", snapshot)
    c.add_argument("--out", type=Path, metavar="FILE", help="default: a new file in the folder *.snapshots beside it")
    stored(c)

    c = command("restore", restore)
    c.add_argument("snapshot", type=Path, metavar="FILE")
    stored(c)

    zoo = commands.add_parser("zoo", help="the small models that ship").add_subparsers(required=True, metavar="COMMAND")
    c = command("train", zoo_train, zoo)
    c.add_argument("--out", type=Path, help="default: data/zoo")
    c.add_argument("--only", nargs="+", metavar="MEMBER", help="default: all")
    c = command("evaluate", zoo_evaluate, zoo)
    c.add_argument("--json", action="store_true")
    c.add_argument("--zoo", type=Path, help="default: data/zoo")
    return parser
