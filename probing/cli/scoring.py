"""Commands on files: of sequences to score, of scores to compare, and of circuits."""

import argparse
import json
from dataclasses import asdict, replace

from probing.cli.shared import edges_named, loaded, method_of, progress_bar
from probing.errors import ScoresError


def attribute(arguments: argparse.Namespace) -> None:
    """Score the edges of one model over a file of sequences."""
    from probing.models import load_tokenizer, vocabulary_digest
    from probing.scores import write_scores
    from probing.scoring import attribute as score

    there = loaded(arguments)
    with progress_bar() as progress:
        scores = score(
            there.attributor,
            there.samples,
            arguments.batch_size,
            lambda done: progress("edges", done, len(there.samples)),
            method_of(arguments),
        )
    tokenizer = vocabulary_digest(load_tokenizer(there.checkpoint))
    write_scores(arguments.out, replace(scores, tokenizer=tokenizer))
    there.say(arguments.out, scores.graph.size, scores.method)


def ablate(arguments: argparse.Namespace) -> None:
    """Really remove edges of one model, each alone, over a file of sequences; goes on where it was interrupted."""
    from probing.ablation import unfinished, write_effects
    from probing.library import ablate as remove

    there = loaded(arguments)
    samples, attributor, method = there.samples, there.attributor, method_of(arguments)
    edges = edges_named(arguments.edges, attributor.graph)
    made_by = [
        there.checkpoint.identity, asdict(there.how), [asdict(sample) for sample in samples],
        method.as_json(), attributor.graph.as_text(), edges,
    ]  # fmt: skip
    attributor.check(samples)
    with progress_bar() as progress, unfinished(arguments.out, made_by, len(samples), len(edges)) as found:
        effects = remove(
            attributor,
            samples,
            attributor.graph.names(edges),
            method,
            arguments.batch_size,
            lambda done: progress("removals", done, found.size),
            found,
        )
        write_effects(arguments.out, effects)
    there.say(arguments.out, len(edges), method)


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
    print(f"{'':34}{'base':>12}{'tuned':>12}{'difference':>12}   95 % interval")
    for name, c in result.items():
        interval = f"[{c.ci_low:.4g}, {c.ci_high:.4g}]"
        label = metrics.with_unit(metrics.METRICS[name].label, metrics.METRICS[name].full_unit)
        print(f"{label:34}{c.base:>12.4g}{c.tuned:>12.4g}{c.difference:>+12.4g}   {interval}")
    print(f"\nThe interval of complexity is one of {metrics.interval_of(metrics.COMPLEXITY.key, definition)}.")


def convert(arguments: argparse.Namespace) -> None:
    """Write a circuit or scores as another kind of file: EAP-IG's JSON and .pt, GraphML, CSV, Parquet, .npz."""
    from probing.exchange.files import convert as write
    from probing.scores import Scores

    made = write(arguments.file, arguments.out, arguments.top, arguments.width)
    of = f"of {len(made.ids)} questions" if isinstance(made, Scores) else f"{made.inside.sum()} of them in the circuit"
    print(f"{arguments.out}: {made.graph.size} edges, {of}")
