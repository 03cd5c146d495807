"""constraints.txt pins everything that `pip install -r requirements-dev.txt` brings, and that is what is installed."""

import re
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT


def _requirements(name: str) -> list[Requirement]:
    """Those of a file, and of the files that it names."""
    lines = (ROOT / name).read_text().splitlines()
    own = [Requirement(line.partition("#")[0]) for line in lines if re.match(r"\w", line)]
    return own + [one for line in lines if line.startswith("-r ") for one in _requirements(line[3:].strip())]


def _closure() -> set[str]:
    """Canonical names of all that the requirements need, as the installed packages say."""
    waiting = _requirements("requirements-dev.txt")
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            needed = (Requirement(text) for text in distribution(name).requires or ())
            waiting += [r for r in needed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def test_all_that_is_installed_for_us_is_pinned() -> None:
    pinned = {canonicalize_name(r.name): r for r in _requirements("constraints.txt")}
    for_cuda = ("nvidia-", "cuda-", "triton")  # what PyTorch brings by itself
    needed = {name for name in _closure() if not name.startswith(for_cuda)}
    assert not sorted(needed - pinned.keys())
    for name in sorted(needed):
        assert pinned[name].specifier.contains(Version(distribution(name).version).public), name


def test_the_pins_agree_with_the_requirements() -> None:
    pinned = {canonicalize_name(r.name): r.specifier for r in _requirements("constraints.txt")}
    for requirement in _requirements("requirements-dev.txt"):
        assert pinned[canonicalize_name(requirement.name)] == requirement.specifier, requirement.name


def test_nothing_is_pinned_that_nobody_needs() -> None:
    needed = _closure()
    for requirement in _requirements("constraints.txt"):
        name = canonicalize_name(requirement.name)
        try:
            distribution(name)
        except PackageNotFoundError:
            continue  # for another version of Python
        assert name in needed, name
