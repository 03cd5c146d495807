"""What commands share."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from probing.method import PAPERS, Method
from probing.store import Store, open_store


def opened(arguments: argparse.Namespace) -> Store:
    """The store that a command is about."""
    return open_store(arguments.store)


def method_of(arguments: argparse.Namespace) -> Method:
    """The method that a command was told."""
    text = getattr(arguments, "text", PAPERS.text)
    return Method(arguments.granularity, arguments.method, arguments.reference, arguments.loss, text, arguments.steps)


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
