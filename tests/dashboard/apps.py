"""The app as AppTest runs it, in this process and without a browser; and what tests read of its pages and its store."""

import json
from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd
from streamlit.testing.v1 import AppTest

from dashboard import service
from probing.jobs.plan import Spec
from probing.jobs.progress import silent
from probing.jobs.worker import do_all
from probing.method import Method
from tests.conftest import ROOT


def open_app(page: str | None = None, link: Mapping[str, str] = MappingProxyType({}), **state: object) -> AppTest:
    """The app where a visitor comes to a page first (by default its front page), with what stands in the link and in
    the state of the session."""
    app = AppTest.from_file(str(ROOT / "dashboard" / "shell.py"), default_timeout=120)
    for name, value in link.items():
        app.query_params[name] = value
    for name, value in state.items():
        app.session_state[name] = value
    if page is not None:
        app.switch_page(f"../pages/{page}.py")
    return app.run()


def text_of(app: AppTest) -> str:
    shown = [*app.title, *app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.metric, *app.subheader]
    return "\n".join(str(getattr(element, "value", "")) for element in shown)


def edges_shown(app: AppTest) -> int:
    (text,) = [c.value for c in app.caption if "edges shown" in c.value]
    return int(text.split()[0])


def compute(spec: Spec) -> None:
    """Have a job done, here and now."""
    do_all(service.store(), [spec], silent)


def by_the_papers_method() -> pd.DataFrame:
    """The comparisons that pages show at first, by pair and cut."""
    table = service.store().comparisons.table()
    plain = table["settings"].map(lambda settings: not Method.from_json(json.loads(settings)["method"]).words)
    return table[plain].set_index(["pair", "alpha"])
