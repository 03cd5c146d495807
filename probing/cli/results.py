"""Commands on what is there: the pairs, and what a store holds of them."""

import argparse
import json
from contextlib import closing
from pathlib import Path

from probing.cli.shared import method_of, opened
from probing.errors import StoreError
from probing.pairs import load_registry
from probing.store.records import RunRow
from probing.store.sharing import move


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


def runs(arguments: argparse.Namespace) -> None:
    """List the runs of a store."""
    with closing(opened(arguments)) as store:
        table = store.runs.table()
    if arguments.json:
        print(table.to_json(orient="records", date_format="iso", indent=2))
        return
    for row in map(RunRow.of, table.to_dict("records")):
        state = "finished" if row.finished else "unfinished"
        print(f"{row.run_key}  {row.pair:12} {row.side:6} {row.question_set:12} {row.cohort:13} {row.at.short:<8}"
              f"{row.scored:>5}/{row.samples} samples  {state}")  # fmt: skip


def report(arguments: argparse.Namespace) -> None:
    """Print what has been found about some pairs, as tables in Markdown."""
    from probing.report import report as lines

    with closing(opened(arguments)) as store:
        for line in lines(store, load_registry(), arguments.pairs, arguments.cohort, method_of(arguments)):
            print(line)


def evidence(arguments: argparse.Namespace) -> None:
    """Print what speaks for or against the numbers of some pairs, as tables in Markdown."""
    from probing.evidence.tables import tables

    with closing(opened(arguments)) as store:
        for line in tables(store, load_registry(), arguments.pairs, arguments.cut, arguments.cohort):
            print(line)


def rollouts(arguments: argparse.Namespace) -> None:
    """Write both models' newest answers to a file, in the columns of the paper's authors."""
    from probing.rollout_files import write_rollouts

    pair = load_registry().pair(arguments.pair)
    questions = arguments.questions or pair.questions[0]
    with closing(opened(arguments)) as store:
        table = store.comparisons.table()
        rows = table[(table["pair"] == pair.name) & (table["question_set"] == questions)]
        if rows.empty:
            raise StoreError(
                f"The store has no answers of {pair.name} to {questions}.",
                f"Run 'python -m probing probe {pair.name}'.",
            )
        base, tuned = (store.rollouts.answers(rows.iloc[0][f"{side}_rollout"]) for side in ("base", "tuned"))
        texts = store.rollouts.texts(rows.iloc[0]["base_rollout"])
    write_rollouts(arguments.out, texts, base, tuned)
    print(f"{arguments.out}: {len(base)} questions, both models' answers")


def export(arguments: argparse.Namespace) -> None:
    """Write the scores of a run to a file."""
    from probing.long_form import write_long
    from probing.scores import write_scores

    out = arguments.out or Path(f"{arguments.run_key}.{arguments.format}")
    with closing(opened(arguments)) as store:
        scores = store.runs.scores(arguments.run_key)
    if arguments.format == "npz":
        write_scores(out, scores)
    else:
        write_long(out, scores, arguments.format)
    print(out)


def snapshot(arguments: argparse.Namespace) -> None:
    """Copy the store as it is now to a file, also while it is in use."""
    if arguments.out is not None and arguments.out.exists():
        raise StoreError(f"{arguments.out} is there already.", "Name another file.")
    with closing(opened(arguments)) as store:
        made = store.file.snapshot()
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
