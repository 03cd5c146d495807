"""The stages of a job, as values: each says what it loads, does some of its items, and emits finished batches.

`stage` has what every kind has, `answering`, `fetching`, `scoring` and `resolving` are the kinds that make answers and
scores; the kinds that make evaluations are in `probing.jobs.measuring`. A stage pickles, so that it can be done in this
process or on another machine; whoever does it has a `probing.jobs.bench.Bench`, and whoever lays it out needs no model.
"""

from probing.jobs.stages.answering import Answering
from probing.jobs.stages.fetching import Fetching
from probing.jobs.stages.resolving import Resolving
from probing.jobs.stages.scoring import Scoring
from probing.jobs.stages.stage import Emit, Say, Stage

__all__ = ["Answering", "Emit", "Fetching", "Resolving", "Say", "Scoring", "Stage"]
