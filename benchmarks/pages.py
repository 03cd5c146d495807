"""How long a person waits: page switches and redraws in headless Chromium, on a server of its own.

    python -m benchmarks.pages                 the zoo's store, computed first if need be
    python -m benchmarks.pages --synthetic     four 32-layer pairs x 3 question sets x 4 cuts x 100 questions
    python -m benchmarks.pages --heads         one pair of 32 layers of 32 heads: 805 681 edges x 100 questions
    python -m benchmarks.pages --quick         a few switches only

A switch counts from the click until the last change of the page, which must then stay as it is for 0.3 s with its
script ended and its figures drawn; the front page from the beginning of the navigation, on a server that has been used,
in a browser that has its scripts. Limits: 1.0 s in the median and 1.5 s in the 95th percentile for a switch, 1.0 s for
the front page, 0.5 s for a control; twice that for the synthetic store, and none for that of heads. The server, which
holds the store too, may hold 2 GiB.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks import serving, synthetic

PAGES = ("Circuits", "Distributions", "Intensity", "Questions", "Timeline", "Evidence", "Methods", "Compare")

MEMORY = 2 * 2**30
"""Bytes that the server may hold."""

_WATCH = """() => {
  window.acted = 0; window.changed = performance.now();
  for (const kind of ["pointerdown", "keydown"])
    window.addEventListener(kind, () => { window.acted = performance.now(); }, {capture: true});
  new MutationObserver(() => { window.changed = performance.now(); }).observe(
    document, {subtree: true, childList: true, attributes: true, characterData: true});
}"""
"""Notes when something was last done, which at first is the navigation, and when the page last changed."""

_SETTLED = """() => {
  const app = document.querySelector("[data-testid=stApp]");
  if (!app) return false;
  const busy = document.querySelector("[data-testid=stMain] [data-testid=stSkeleton]");
  const undrawn = [...document.querySelectorAll(".js-plotly-plot")].some(p => !p.querySelector(".main-svg"));
  const unloaded = [...document.images].some(image => !image.complete);
  return app.dataset.testScriptState === "notRunning" && !busy && !undrawn && !unloaded
      && performance.now() - window.changed > 300 && window.changed - window.acted;
}"""


def _timed(page: Page, act: Callable[[], object]) -> float:
    """Seconds from an action until the page has stopped changing."""
    act()
    page.wait_for_timeout(60)
    handle = page.wait_for_function(_SETTLED, polling=20, timeout=60_000)
    return float(handle.json_value()) / 1000


def _switch(page: Page, name: str) -> Callable[[], None]:
    def act() -> None:
        page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
        page.get_by_test_id("stMain").get_by_role("heading", level=1).filter(
            has_text=name if name != "Compare" else "→"
        ).wait_for()

    return act


def _press(page: Page, label: str, key: str = "ArrowRight") -> Callable[[], None]:
    """A step of a slider."""
    return lambda: page.get_by_role("slider", name=label).first.press(key)


def switches(page: Page, rounds: int) -> dict[str, list[float]]:
    """Seconds of each page's switches; each page's first is not counted in `rounds`, but is kept apart."""
    first = {f"{name}, first": [_timed(page, _switch(page, name))] for name in PAGES}
    later: dict[str, list[float]] = {name: [] for name in PAGES}
    for _ in range(rounds):
        for name in PAGES:
            later[name].append(_timed(page, _switch(page, name)))
    return first | later


def controls(page: Page, rounds: int) -> dict[str, list[float]]:
    """Seconds of redraws after a control's change."""
    actions: dict[str, tuple[str, Callable[[], Callable[[], object]]]] = {
        "edges shown": ("Circuits", lambda: _press(page, "Edges in each panel")),
        "bins": ("Distributions", lambda: _press(page, "Bins")),
        "log counts": ("Distributions", lambda: lambda: page.get_by_text("Log counts").click()),
        "groups": (
            "Intensity",
            lambda: (
                lambda: (
                    page.locator("[data-testid=stSegmentedControl], .stButtonGroup")
                    .last.locator("button[aria-checked=false], button[kind=segmented_control]")
                    .first.click()
                )
            ),
        ),
        "training step": ("Timeline", lambda: _press(page, "Training step", "ArrowLeft")),
    }
    seconds: dict[str, list[float]] = {}
    for name, (where, action) in actions.items():
        _timed(page, _switch(page, where))
        if name == "training step" and not page.get_by_role("slider", name="Training step").count():
            continue
        seconds[name] = [_timed(page, action()) for _ in range(rounds)]
    return seconds


def arrivals(page: Page, url: str, rounds: int) -> list[float]:
    """Seconds from the beginning of the navigation to the front page until it is complete."""

    def arrive() -> None:
        page.goto(url, wait_until="commit")
        page.get_by_role("img", name="The circuit of a model").first.wait_for()

    return [_timed(page, arrive) for _ in range(rounds)]


def percentile(values: list[float], share: float) -> float:
    """The value that a share of the values does not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def _report(title: str, seconds: dict[str, list[float]]) -> None:
    print(f"\n{title}")
    for name, values in seconds.items():
        print(f"  {name:24} median {statistics.median(values):5.2f} s   95 % {percentile(values, 0.95):5.2f} s")


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 1 if a limit is passed (never with --quick)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--heads", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--store", type=Path, help="keep the store here, and use it if it is there")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args(argv)
    if serving.CHROME is None:
        print("No Chromium on this machine: nothing measured.")
        return 0
    rounds = 1 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = (arguments.store or Path(folder) / "store.duckdb").absolute()
        if arguments.synthetic or arguments.heads:
            environment = synthetic.make(store, synthetic.OF_HEADS if arguments.heads else synthetic.MANY)
        else:
            environment = {}
            serving.compute_shipped(store, first_only=arguments.quick)
        server = serving.Server(store, environment)
        browser = playwright.chromium.launch(executable_path=serving.CHROME, args=serving.CHROME_FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        started = time.monotonic()
        page.add_init_script(f"({_WATCH})()")
        page.goto(f"{server.url}/compare")
        page.get_by_test_id("stMain").get_by_role("heading", level=1).wait_for(timeout=60_000)
        page.wait_for_function(_SETTLED, polling=20, timeout=60_000)
        print(f"first page of a fresh server: {time.monotonic() - started - 0.3:.2f} s")
        switched = switches(page, rounds)
        changed = controls(page, rounds)
        arrived = arrivals(page, server.url, max(3, rounds))
        browser.close()
        peak = server.peak()
        server.stop()
    firsts = {name: values for name, values in switched.items() if name.endswith("first")}
    later = {name: values for name, values in switched.items() if name not in firsts}
    _report("page switches, first of the session", firsts)
    _report("page switches", later)
    _report("controls", changed)
    _report("arrivals", {"Start": arrived})
    every, redraws = [v for vs in later.values() for v in vs], [v for vs in changed.values() for v in vs]
    factor = math.inf if arguments.heads else 2 if arguments.synthetic else 1
    found = {
        "switch, median": (statistics.median(every), 1.0 * factor),
        "switch, 95 %": (percentile(every, 0.95), 1.5 * factor),
        "front page, median": (statistics.median(arrived), 1.0 * factor),
        "control, median": (statistics.median(redraws), 0.5 * factor),
    }
    print()
    for name, (value, limit) in found.items():
        print(f"{name:18} {value:5.2f} s (limit {limit:.1f} s){'' if value <= limit else '  ABOVE'}")
    above = "" if peak <= MEMORY else "  ABOVE"
    print(f"server, at most    {peak / 2**30:5.2f} GiB (limit {MEMORY / 2**30:.1f} GiB){above}")
    kept = peak <= MEMORY and all(value <= limit for value, limit in found.values())
    return 0 if arguments.quick or kept else 1


if __name__ == "__main__":
    sys.exit(main())
