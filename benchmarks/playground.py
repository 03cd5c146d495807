"""How long people wait for the playground: many of them at once, through the door, with its real process.

    python -m benchmarks.playground            10 people for two minutes; 1 if the limit is passed, or one fails
    python -m benchmarks.playground --quick    the same for 20 seconds, too few answers for the limit to count

Each person types a problem that nobody has asked, looks at what both models say, changes something five times (an edge
or a node, removed or swapped; sometimes another token), and begins anew, reading for `--think` seconds on average after
each answer. The first answer of all, for which the process is started, and each kind of change's first, for which means
are measured, are told apart. Limit: a median of 300 ms, time in the queue included.
"""

import argparse
import random
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field

import psutil

from benchmarks import serving
from benchmarks.pages import percentile
from probing.errors import PersonError
from probing.playground import Change, Door, Experiment

LIMIT = 0.3
"""Seconds that half of all answers may take at most."""

PAIR = "grpo"

CHANGED = ("a0", "m0", "a3", "m4", "input->m0", "a0->m2", "m1->a3<v>", "m5->logits", "a2->a4<q>", "m2->logits")


@dataclass
class Waited:
    """Seconds that people waited, and what failed."""

    typed: list[float] = field(default_factory=list)
    """For a question that nobody had asked."""
    changed: list[float] = field(default_factory=list)
    """For a change, or another token, of a question that had been."""
    computing: list[float] = field(default_factory=list)
    """What of all that the process computed."""
    errors: list[str] = field(default_factory=list)


def person(door: Door, name: str, think: float, ends: float, waited: Waited) -> None:
    """Ask until the time ends."""
    rng = random.Random(name)

    def ask(experiment: Experiment, seen: list[float]) -> None:
        time.sleep(rng.expovariate(1 / think))
        if (started := time.monotonic()) > ends:
            return
        try:
            outcome = door.ask(experiment, name)
        except PersonError as error:
            waited.errors.append(str(error))
            return
        seen.append(time.monotonic() - started)
        waited.computing.append(outcome.seconds)

    while time.monotonic() < ends:
        digits = rng.choice((3, 4, 5))
        question = "+".join(str(rng.randrange(10 ** (digits - 1), 10**digits)) for _ in range(2)) + "="
        ask(Experiment(PAIR, question), waited.typed)
        changes: tuple[Change, ...] = ()
        token = 0
        for _ in range(5):
            if rng.random() < 0.2:
                token = rng.randrange(12)
            else:
                kind = rng.choice(("zero", "zero", "swap", "swap", "mean"))
                changes += (Change(kind, rng.choice(CHANGED)),)  # type: ignore[arg-type]
            ask(Experiment(PAIR, question, changes, token), waited.changed)


def first(door: Door) -> tuple[float, float]:
    """Seconds of the first answer of all, and of the first that needs means."""
    found = []
    for changes in ((), (Change("mean", "a0"),)):
        started = time.monotonic()
        door.ask(Experiment(PAIR, "3471+2853=", changes), "first")
        found.append(time.monotonic() - started)
    return found[0], found[1]


def worked() -> float:
    """Seconds that processors have worked for the process behind the door."""
    return sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children())


def row(name: str, seconds: list[float]) -> str:
    """How long half, and nearly all, of some answers took."""
    over = sum(one > LIMIT for one in seconds) / len(seconds)
    return (
        f"{name:28}{len(seconds):6}  median {statistics.median(seconds) * 1000:5.0f} ms   95 % "
        f"{percentile(seconds, 0.95) * 1000:5.0f} ms   over {LIMIT * 1000:.0f} ms: {over:.0%}"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--think", type=float, default=5.0, help="seconds that one reads, on average")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    load, pace = psutil.getloadavg()[0], serving.pace()
    print(f"load of this machine before: {load:.1f} on {psutil.cpu_count()} cores; pace {pace:.2f} s")
    door, waited = Door(False), Waited()
    try:
        start, means = first(door)
        print(f"first answer of all {start:.1f} s, first that needs means {means:.1f} s")
        used = worked()
        ends = time.monotonic() + (20.0 if arguments.quick else arguments.seconds)
        people = [
            threading.Thread(target=person, args=(door, f"person {i}", arguments.think, ends, waited))
            for i in range(arguments.people)
        ]
        for one in people:
            one.start()
        for one in people:
            one.join()
        used, memory = worked() - used, sum(child.memory_info().rss for child in psutil.Process().children())
    finally:
        door.close()
    every = waited.typed + waited.changed
    print(f"{arguments.people} people, who think for {arguments.think:g} s on average:")
    print(row("a new question", waited.typed), row("a change", waited.changed), row("all", every), sep="\n")
    print(row("all, without the queue", waited.computing))
    print(f"processor time of an answer: {used / len(every) * 1000:.0f} ms on average")
    print(f"{len(waited.errors)} errors {waited.errors[:1] or ''}; the process holds {memory / 2**20:.0f} MiB")
    above = statistics.median(every) > LIMIT
    print(f"median {statistics.median(every) * 1000:.0f} ms (limit {LIMIT * 1000:.0f} ms){'  ABOVE' if above else ''}")
    return int(bool(waited.errors) or (above and not arguments.quick))


if __name__ == "__main__":
    sys.exit(main())
