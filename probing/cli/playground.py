"""The command that answers experiments."""

import argparse


def serve(arguments: argparse.Namespace) -> None:
    """Answer experiments, one JSON object a line on stdin and stdout, until stdin ends; the dashboard starts it."""
    from probing.playground.server import serve as answer_all

    answer_all(arguments.allow_large)
