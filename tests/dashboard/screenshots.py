"""Photographs of every page: `make screenshots` (about ten minutes; needs a Chromium). With a store's path, of that.

They go to docs/screenshots, light and dark, 1440 and 390 pixels wide, taken from a server on a store of its own.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.serving import CHROME, CHROME_FLAGS, Server
from benchmarks.start import BUSY
from tests.conftest import ROOT

PAGES = {
    "start": "",
    "compare": "compare",
    "circuits": "circuits",
    "play": "play?changes=remove+a0-%3Em0",
    "transplant": "transplant?block=a0",
    "distributions": "distributions",
    "intensity": "intensity",
    "questions": "questions?q=add-0026&element=a5",
    "timeline": "timeline",
    "evidence": "evidence",
    "runs": "runs",
    "add": "add",
    "methods": "methods",
    "lesson1": "lesson1",
    "lesson6": "lesson6",
    "glossary": "glossary",
}


def main() -> int:
    """Take them all."""
    target = ROOT / "docs" / "screenshots"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = Path(folder) / "store.duckdb"
        if len(sys.argv) > 1:
            shutil.copy(sys.argv[1], store)
        server = Server(store, {"PROBING_START": "evidence"})
        browser = playwright.chromium.launch(executable_path=CHROME, args=CHROME_FLAGS)
        page = browser.new_page()
        page.goto(server.url)
        if len(sys.argv) == 1:
            page.get_by_text(BUSY).wait_for(state="visible", timeout=60_000)
        page.get_by_text(BUSY).wait_for(state="hidden", timeout=1_200_000)
        page.goto(f"{server.url}/{PAGES['questions']}")
        page.get_by_role("button", name="Compute token by token").click()
        page.get_by_text("The bars add up").wait_for(timeout=120_000)
        for scheme in ("light", "dark"):
            for width in (1440, 390):
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                for name, path in PAGES.items():
                    page = context.new_page()
                    page.goto(f"{server.url}/{path}")
                    page.get_by_test_id("stMain").get_by_role("heading", level=1).wait_for(timeout=60_000)
                    page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for(timeout=120_000)
                    page.wait_for_timeout(1500)
                    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
                    page.set_viewport_size({"width": width, "height": max(900, min(height, 3200))})
                    page.wait_for_timeout(1500)
                    page.screenshot(path=target / f"{name}-{scheme}-{width}.png")
                    page.close()
                context.close()
        browser.close()
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
