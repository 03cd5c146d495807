"""Commands on files: of sequences to score, of scores to compare, and of circuits."""

import argparse
import json
from dataclasses import replace

from probing.cli.shared import method_of, progress_bar
from probing.errors import ScoresError


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
    with progress_bar() as progress:
        scores = score(
            Attributor(model, arguments.granularity),
            samples,
            arguments.batch_size,
            lambda done: progress("edges", done, len(samples)),
            method_of(arguments),
        )
    write_scores(arguments.out, replace(scores, tokenizer=vocabulary_digest(load_tokenizer(checkpoint))))
    made = "".join(f", {words}" for words in scores.method.words)
    print(f"{arguments.out}: {len(samples)} samples, {scores.graph.size} edges, {device}, {model.dtype}{made}")
    if undivided := sum(heads is None for heads in scores.graph.heads):
        print(
            f"In {undivided} of {scores.graph.layers} layers heads cannot be told apart: there, attention is a block."
        )


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
    """Write a circuit as EAP-IG's JSON, or its edges as GraphML, from EAP-IG's .pt or JSON or a file of scores."""
    from probing.exchange.files import convert as write

    circuit = write(arguments.file, arguments.out, arguments.top, arguments.width)
    print(f"{arguments.out}: {circuit.graph.size} edges, {circuit.inside.sum()} of them in the circuit")
