"""What commands share."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probing.errors import PersonError, ScoresError
from probing.files import check_place
from probing.graph import ResidualGraph, is_edge
from probing.method import PAPERS, Method
from probing.sequences import Sample, read_samples
from probing.store import Store, open_store

if TYPE_CHECKING:
    from probing.attribution import Attributor
    from probing.checkpoints import Checkpoint
    from probing.jobs.plan import Numerics


def opened(arguments: argparse.Namespace) -> Store:
    """The store that a command is about."""
    return open_store(arguments.store)


def method_of(arguments: argparse.Namespace) -> Method:
    """The method that a command was told.

    Raises:
        PersonError: it was told a number of steps for what takes none.
    """
    text, path = getattr(arguments, "text", PAPERS.text), getattr(arguments, "method", PAPERS.path)
    steps = getattr(arguments, "steps", None)
    if steps is not None and path != "eap-ig":
        raise PersonError(f"The method {path} takes no steps.", "Leave out --steps, or choose --method eap-ig.")
    return Method(arguments.granularity, path, arguments.reference, arguments.loss, text, steps or PAPERS.steps)


@dataclass(frozen=True)
class Loaded:
    """A model on a file of sequences."""

    samples: list[Sample]
    checkpoint: "Checkpoint"
    how: "Numerics"
    attributor: "Attributor"

    def say(self, out: Path, edges: int, method: Method) -> None:
        """Print what stands in a file that was made with it."""
        graph, model = self.attributor.graph, self.attributor.model
        words = "".join(f", {words}" for words in method.words)
        print(f"{out}: {len(self.samples)} samples, {edges} edges, {model.device.type}, {model.dtype}{words}")
        if undivided := sum(heads is None for heads in graph.heads):
            print(f"In {undivided} of {graph.layers} layers heads cannot be told apart: there, attention is a block.")


def loaded(arguments: argparse.Namespace) -> Loaded:
    """The sequences that a command names, and the model, ready to score them.

    Raises:
        SequenceError: the file cannot be read.
        ModelError: the model cannot be loaded or trusted.
        ScoresError: what is made of it may not stand where it is to.
    """
    from probing.attribution import Attributor
    from probing.checkpoints import find
    from probing.jobs.numerics import numerics_of
    from probing.models import DTYPES, load_model, pick_device, use_threads_for

    method_of(arguments)  # refuses what makes no sense before anything is loaded
    if (out := getattr(arguments, "out", None)) is not None:
        check_place(out, ScoresError)
    samples = read_samples(arguments.sequences)
    checkpoint = find(arguments.model, arguments.revision, arguments.pickled)
    how = numerics_of(arguments.device, arguments.dtype, arguments.attention, [checkpoint])
    model = load_model(checkpoint, pick_device(how.device), DTYPES[how.scores], how.attention)
    use_threads_for(model)
    return Loaded(samples, checkpoint, how, Attributor(model, arguments.granularity))


def edges_named(said: list[str], graph: ResidualGraph) -> list[int]:
    """The numbers of the edges that a command names: `all`, names, or files with a name in each line.

    Raises:
        ScoresError: the graph has no such edge, or a file cannot be read.
    """
    from probing.library import edge_numbers

    if said == ["all"]:
        return list(range(graph.size))
    names: dict[str, None] = {}
    for word in said:
        names |= dict.fromkeys([word] if is_edge(word) else _lines(Path(word)))
    return edge_numbers(graph, names)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ScoresError(
            f"'{path}' is neither an edge nor a file of their names.", "Give each edge a line, such as m2->a5<q>."
        ) from error
    if not any(lines):
        raise ScoresError(f"{path} names no edge.", "Give each edge a line, such as m2->a5<q>.")
    return [line for line in lines if line]


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, renamed with each stage; nothing where stderr is no terminal."""
    from tqdm import tqdm

    with tqdm(disable=None, leave=False) as bar:

        def show(stage: str, done: int, total: int) -> None:
            bar.total = total
            bar.n = done
            bar.set_description(stage)

        yield show
