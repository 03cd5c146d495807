"""Run `tests/cuda` and write what it measured into a document: `python -m tests.cuda.report [--out F] [--document F]`.

The tables go between the document's two marks; all else in it stays. `--from F` writes those of an earlier run, whose
JSON was kept with `--out`. Ends as the tests do; where nothing was measured, the document stays as it is.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

BEGIN, END = "<!-- tables of tests/cuda, by `make cuda` -->", "<!-- end of the tables -->"

_TITLES = {
    "float32": "Differences from the CPU in float32, relative, by Frobenius norms",
    "several devices": "The same of a model that is spread over several devices: scores, real removals, circuits",
    "bfloat16": "Relative differences of bfloat16 from float64 on the CPU",
    "answers": "Greedy answers in float32 that differ from the CPU's; a tie is a difference of logits below 0.001",
    "time": "Seconds of a bare forward and backward pass, and of scoring",
    "memory": "Memory beside the weights, in MB: peaks, and the estimate by which batches are chosen",
    "memory runs out": "Samples of the largest batch that was done where memory ran out",
}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of one kind, in Markdown."""
    names = [name for name in rows[0] if name not in ("table", "of")]
    lines = [["", *(name.replace("_", " ") for name in names)], ["---"] * (len(names) + 1)]
    lines += [[row["of"], *(f"{row[name]:.3g}" for name in names)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(made: dict[str, Any]) -> str:
    """All that a run measured, in Markdown."""
    failed = f" **{made['failed']} tests failed.**" if made["failed"] else ""
    versions = f"CUDA {made['cuda']}, " if made["cuda"] else ""
    parts = [
        f"Measured on {made['device']} on {made['date']} in {made['seconds']} s ({versions}torch {made['torch']}, "
        f"transformers {made['transformers']}, Python {made['python']}).{failed}"
    ]
    for kind, title in _TITLES.items():
        if rows := [row for row in made["measured"] if row["table"] == kind]:
            parts += [f"{title}:", table(rows)]
    return "\n\n".join(parts)


def put(document: Path, text: str) -> None:
    """Write the tables between the marks.

    Raises:
        SystemExit: the document does not have both.
    """
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{document} has no '{BEGIN}' followed by '{END}'.")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Run the tests, or take what an earlier run wrote."""
    parser = argparse.ArgumentParser(prog="python -m tests.cuda.report", description=__doc__)
    parser.add_argument("--out", type=Path, help="keep what was measured as JSON")
    parser.add_argument("--from", dest="earlier", type=Path, help="do not run, but take this JSON")
    parser.add_argument("--document", type=Path, help="a document with the two marks")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = (arguments.earlier or arguments.out or Path(folder) / "measured.json").resolve()
        status = 0
        if not arguments.earlier:
            out.unlink(missing_ok=True)
            status = int(pytest.main([str(Path(__file__).parent), "-p", "no:xdist", "--out", str(out)]))
        if not out.exists():
            device = os.environ.get("PROBING_TEST_DEVICE", "cuda")
            sys.exit(f"Nothing was measured on '{device}'. With PROBING_TEST_DEVICE=cpu it runs without a GPU.")
        text = tables(json.loads(out.read_text(encoding="utf-8")))
    sys.stdout.write(text + "\n")
    if arguments.document:
        put(arguments.document, text)
    sys.exit(status)


if __name__ == "__main__":
    main()
