"""How long a fresh store takes: until somebody who opens the app sees a comparison, and until all evidence is there.

`python -m benchmarks.start` needs a Chromium, and a machine that does nothing else.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks import serving
from probing.store import open_store

BUSY = re.compile(r"Computing; \d+ jobs? to go")
"""What the sidebar says meanwhile."""


def measure(store: Path) -> dict[str, float]:
    """Seconds from the first visit to a server on a store that is not there yet."""
    with sync_playwright() as playwright:
        server = serving.Server(store, {"PROBING_START": "evidence"})
        browser = playwright.chromium.launch(executable_path=serving.CHROME, args=serving.CHROME_FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        started = time.monotonic()
        page.goto(f"{server.url}/compare")
        page.get_by_text("Activation intensity (nats)").first.wait_for(timeout=600_000)
        first = time.monotonic() - started
        page.get_by_text(BUSY).wait_for(state="hidden", timeout=1_800_000)
        whole = time.monotonic() - started
        browser.close()
        server.stop()
    with closing(open_store(store)) as opened:
        jobs = opened.queue.jobs()
    if not (jobs["status"] == "done").all():
        raise RuntimeError(f"not all jobs were done: {jobs['status'].value_counts().to_dict()}")
    return {"first_comparison_seconds": first, "everything_seconds": whole, "jobs": len(jobs)}


def main() -> int:
    """Print the times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--store", type=Path, help="where to leave the store, which must not be there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure((arguments.store or Path(folder) / "store.duckdb").absolute())
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"first comparison  {found['first_comparison_seconds']:7.1f} s")
    print(f"everything        {found['everything_seconds']:7.1f} s, {found['jobs']:.0f} jobs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
