"""The product's work from a terminal: `python -m probing --help`.

An error that a person can cause is one sentence on stderr and exit code 2. Heavy imports wait for the command that
needs them, so that `--help` and listings answer at once.
"""

import sys

from probing import logs
from probing.cli.parsing import parser
from probing.errors import PersonError


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = parser().parse_args(argv)
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
