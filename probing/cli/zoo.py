"""Commands on the small models that ship."""

import argparse
import json

from probing.errors import PersonError


def train(arguments: argparse.Namespace) -> None:
    """Train members of the zoo."""
    try:
        from probing.zoo.train import train_all
    except ImportError as error:
        raise PersonError(
            f"Training needs a package that is not installed ({error.name}).",
            "Run 'pip install -r requirements-zoo.txt'.",
        ) from error
    train_all(arguments.out, arguments.only)


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure what the members of the zoo can do."""
    from probing.zoo.evaluate import evaluate as measure

    result = measure(arguments.zoo)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{'':12}{'greedy':>8}{'sampled':>9}{'nll of correct':>16}")
    for name, row in result["accuracy"].items():
        print(f"{name:12}{row['greedy']:>8.3f}{row['sampled']:>9.3f}{result['nll_correct'][name]:>16.4f}")
