"""Names, one-sentence definitions, and sentences made from numbers."""

import math
import re
from functools import cache
from pathlib import Path

import pandas as pd

from probing import evidence
from probing.figures.checks import CHECKS
from probing.figures.theme import between, number, percent
from probing.graph import BIAS, ResidualGraph
from probing.method import Method
from probing.metrics import LOW_COVERAGE, Comparison, coverage, measured_size

_METHOD = Path(__file__).resolve().parents[1] / "docs" / "method.md"


@cache
def section(title: str) -> str:
    """A section of docs/method.md, which the pages quote rather than say again; KeyError if there is none."""
    parts = re.split(r"^## (.+)$", _METHOD.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title].strip()


CITATION = """
The method: Zhang, Hao, Xu and Li, *Reinforcement Learning Fine-Tuning Enhances Activation Intensity and Diversity in
the Internal Circuitry of LLMs*, ICLR 2026, [arXiv:2509.21044](https://arxiv.org/abs/2509.21044). Edge attribution
patching: Syed, Rager and Conmy, [arXiv:2310.10348](https://arxiv.org/abs/2310.10348).

For what this program computed, cite it as *RL Circuit Explorer* with the version of its code, and give the identities
of the runs, which stand in the table above: with them anybody can compute the same numbers again.
"""

BIBTEX = """@inproceedings{zhang2026reinforcement,
  title = {Reinforcement Learning Fine-Tuning Enhances Activation Intensity and Diversity
           in the Internal Circuitry of {LLMs}},
  author = {Zhang, Honglin and Hao, Qianyue and Xu, Fengli and Li, Yong},
  booktitle = {International Conference on Learning Representations},
  year = {2026},
  eprint = {2509.21044},
  archivePrefix = {arXiv},
  url = {https://arxiv.org/abs/2509.21044}
}

@software{rlcircuitexplorer,
  title = {{RL Circuit Explorer}},
  author = {{The authors of RL Circuit Explorer}},
  year = {2026},
  note = {State the version of the code, and the identities of the runs (page Methods)}
}
"""
"""Of the paper whose method this is, and of this program."""

_ACTIVE = re.compile(r"[\\`*_\[\]<>$~&|#!^]|^[-+]|^\d+(?=[.)])")
"""What Markdown makes more of than characters, anywhere or at the beginning of a line."""

_LINKED = re.compile(r"(?<=[:@])(?=\S)|(?<=www)(?=\.)", re.IGNORECASE)
"""Where Streamlit finds addresses, emoji and colours in what has been read, whether escaped or not."""

JOINER = "\u2060"
"""A character without width."""

LONGEST = 500
"""Characters of a text from outside that are shown."""


def as_text(text: str) -> str:
    """Something from outside (a link, a file, the registry) as Markdown that shows just that, on one line."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    shown = shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 2]} …"
    escaped = _ACTIVE.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", shown)
    return _LINKED.sub(JOINER, escaped)


def check_badge(verdict: evidence.Verdict, count: int | None = None) -> str:
    """A verdict on an estimate, or on so many, as Markdown."""
    return f":{CHECKS[verdict].badge}-badge[{verdict if count is None else f'{count} {verdict}'}]"


def interval(comparison: Comparison) -> str:
    """The 95 % interval of a difference."""
    if not (math.isfinite(comparison.ci_low) and math.isfinite(comparison.ci_high)):
        return "none: too few questions"
    return between(comparison.ci_low, comparison.ci_high)


def with_intervals(table: pd.DataFrame, column: str, signed: bool = True) -> list[str]:
    """Numbers and their 95 % intervals, whose ends are in `COLUMN_low` and `COLUMN_high`; as far as there are such."""

    def said(value: float, *ends: float) -> str:
        known = math.isfinite(value) and all(map(math.isfinite, ends))
        between = f" ({' to '.join(number(end, signed) for end in ends)})" if known else ""
        return number(value, signed) + between

    columns = (table[column + end] for end in ("", "_low", "_high"))
    return [said(*of) for of in zip(*columns, strict=True)]


def relative_interval(comparison: Comparison) -> str:
    """Relative change and its interval, as percentages of the base."""
    if comparison.relative is None:
        return "no share: the base may be zero"
    if not has_relative_interval(comparison):
        return f"{percent(comparison.relative)}, no interval"
    low, high = (percent(end).removesuffix(" %") for end in (comparison.relative_low, comparison.relative_high))
    return f"{percent(comparison.relative)} ({low} to {high})"


def has_relative_interval(comparison: Comparison) -> bool:
    """Whether there is an interval of the share of the base."""
    return math.isfinite(comparison.relative_low) and math.isfinite(comparison.relative_high)


def coverage_note(metric: str, questions: int) -> str | None:
    """A caution where the intervals of a metric were seen to hold the true value less often than they say."""
    share = coverage(metric, questions)
    if share is None or share >= LOW_COVERAGE:
        return None
    held = percent(share, signed=False)
    trials = f"In trials with {measured_size(metric, questions)} questions"
    return f"{trials}, such intervals held the true value {held} of the time."


ARROWS = {1: "↑", -1: "↓", 0: "·"}
"""Up, down, or within question noise."""


DOUBLE = {1: "↑↑", -1: "↓↓", 0: "·"}
"""The same of what is beyond the seed band too."""


def arrowed(comparison: Comparison, beyond_seeds: bool = False) -> str:
    """Relative change and its interval, with an arrow before them."""
    arrows = DOUBLE if beyond_seeds else ARROWS
    return f"{arrows[comparison.direction]} {relative_interval(comparison)}"


def listed(items: list[str]) -> str:
    """Some things, in a sentence."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def bins_verdict(by_bins: dict[int, Comparison]) -> str:
    """Whether the sign of the change of complexity hangs on the number of bins."""
    signs = {bins: c.direction for bins, c in by_bins.items()}
    up, down = ([bins for bins, sign in signs.items() if sign == s] for s in (1, -1))
    if len(up) == len(signs) or len(down) == len(signs):
        return f"Complexity {'rose' if up else 'fell'} whatever the number of bins, from {min(signs)} to {max(signs)}."
    if up and down:
        return (
            f"**The conclusion depends on the bins**: complexity rose with {listed([str(b) for b in up])} bins "
            f"and fell with {listed([str(b) for b in down])}."
        )
    if not up and not down:
        return "Complexity did not move beyond question noise with any number of bins."
    still = [str(bins) for bins, sign in signs.items() if not sign]
    return f"Complexity {'rose' if up else 'fell'}, but not beyond question noise with {listed(still)} bins."


def share_of_zero(method: Method) -> str:
    """What is added where the signs of scores are shown, for a method whose scores into a reader sum to zero."""
    if not method.sums_to_zero:
        return ""
    return (
        " Scores into one reader behind a norm sum to zero: a sign says how a writer pulls against the others, and "
        "some are negative whatever the model does."
    )


def folded(graph: ResidualGraph) -> str:
    """What a graph's caption adds where blocks are made of heads; nothing elsewhere."""
    if graph.granularity != "heads":
        return ""
    return f" An attention block stands for its heads; clicked, it opens.{undivided(graph)}"


def by_head(graph: ResidualGraph) -> str:
    """What the caption of a matrix of heads says."""
    parts = {one.part for one in graph.writer_records}
    groups = " At a head stands its query, at `g0` the keys and values that a group of heads shares."
    bias = " `bias` is what a block writes whatever its heads say."
    return (
        "The same for each head: of the edges into it, or out of it."
        f"{groups if graph.feeds else ''}{bias if BIAS in parts else ''}{undivided(graph)}"
    )


def undivided(graph: ResidualGraph) -> str:
    """Which layers of a graph of heads have none that can be told apart; nothing if all have."""
    layers = [layer for layer, heads in enumerate(graph.heads) if heads is None]
    if not layers:
        return ""
    many = "layers" if len(layers) > 1 else "layer"
    return f" The heads of {many} {', '.join(map(str, layers))} cannot be told apart and stay one."
