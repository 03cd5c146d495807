"""A viewer without a browser: speaks Streamlit's WebSocket protocol as its client does, and never draws."""

import asyncio
import random
import re
import time
import urllib.request
from dataclasses import dataclass, field
from typing import Any

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.typing import Origin, Subprotocol

LONGEST = 60.0
"""Seconds after which an answer is given up."""


class ViewerError(Exception):
    """What a person would see as broken: an exception on the page, a lost connection, no answer."""


def fetch_shell(url: str) -> int:
    """Load what a browser loads before it connects: the page, its scripts and styles; returns the bytes."""
    with urllib.request.urlopen(url, timeout=LONGEST) as reply:
        page = reply.read()
    total = len(page)
    for path in re.findall(r'(?:src|href)="\./(static/[^"]+\.(?:js|css))"', page.decode()):
        with urllib.request.urlopen(f"{url}/{path}", timeout=LONGEST) as reply:
            total += len(reply.read())
    return total


@dataclass
class Viewer:
    """One browser tab: a connection, the page that is open, and the controls on it."""

    url: str
    rng: random.Random
    pages: dict[str, str] = field(default_factory=dict)
    """The hash of each page by its path."""
    texts: list[str] = field(default_factory=list)
    """Texts of the last page."""
    _page: str = ""
    _query: str = ""
    _controls: dict[str, tuple[str, Any]] = field(default_factory=dict)
    _states: dict[str, WidgetState] = field(default_factory=dict)
    _socket: Any = None

    async def connect(self) -> None:
        """Open the connection."""
        address = re.sub(r"^http", "ws", self.url) + "/_stcore/stream"
        self._socket = await websockets.connect(
            address,
            subprotocols=[Subprotocol("streamlit")],
            origin=Origin(self.url),
            max_size=None,
            open_timeout=LONGEST,
        )

    async def close(self) -> None:
        """Close the tab."""
        await self._socket.close()

    async def open(self, path: str, query: str = "") -> float:
        """Arrive at a link, or switch to a page by the navigation; returns the seconds until it was complete."""
        self._page, self._query = path, query
        return await self._run()

    async def change(self) -> float | None:
        """Change one of the page's controls; returns the seconds, or None on a page that has none."""
        if not self._controls:
            return None
        name = self.rng.choice(sorted(self._controls))
        kind, control = self._controls[name]
        state = WidgetState(id=name)
        if kind == "slider" and control.options:
            state.string_array_value.data.append(self.rng.choice(list(control.options)))
        elif kind == "slider":
            steps = max(1, int((control.max - control.min) / (control.step or 1)))
            value = control.min + self.rng.randint(0, steps) * (control.step or 1)
            state.double_array_value.data.extend([value] * len(control.default))
        elif kind == "checkbox":
            state.bool_value = not control.value
        elif kind == "selectbox":
            state.string_value = self.rng.choice(list(control.options))
        else:
            options = [option.content or option.content_icon for option in control.options]
            state.string_array_value.data.append(self.rng.choice(options))
        self._states[name] = state
        return await self._run()

    async def _run(self) -> float:
        message = BackMsg()
        request = message.rerun_script
        request.query_string = self._query
        request.page_script_hash = self.pages.get(self._page, "")
        request.page_name = "" if self.pages else self._page
        request.widget_states.widgets.extend(self._states.values())
        started = time.monotonic()
        try:
            await self._socket.send(message.SerializeToString())
            await asyncio.wait_for(self._answer(), LONGEST)
        except TimeoutError as error:
            raise ViewerError(f"/{self._page}{self._query}: no answer in {LONGEST:.0f} s") from error
        except websockets.ConnectionClosed as error:
            raise ViewerError(f"/{self._page}{self._query}: the connection was lost") from error
        return time.monotonic() - started

    async def _answer(self) -> None:
        """Read until the page is complete."""
        self._controls, self.texts = {}, []
        while True:
            reply = ForwardMsg.FromString(await self._socket.recv())
            kind = reply.WhichOneof("type")
            if kind == "navigation":
                self.pages = {page.url_pathname: page.page_script_hash for page in reply.navigation.app_pages}
            elif kind == "new_session":
                self._controls, self.texts = {}, []
            elif kind == "page_info_changed":
                self._query = reply.page_info_changed.query_string
            elif kind == "session_event":
                raise ViewerError(f"/{self._page}: {reply.session_event}")
            elif kind == "delta" and reply.delta.WhichOneof("type") == "new_element":
                self._see(reply.delta.new_element, in_main=reply.metadata.delta_path[0] == 0)
            elif kind == "script_finished":
                if reply.script_finished in (
                    ForwardMsg.FINISHED_SUCCESSFULLY,
                    ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY,
                ):
                    return
                if reply.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                    raise ViewerError(f"/{self._page}: the script did not finish")

    def _see(self, element: Element, in_main: bool) -> None:
        kind = str(element.WhichOneof("type"))
        content: Any = getattr(element, kind)
        if kind == "exception":
            raise ViewerError(f"/{self._page}{self._query}: {content.type}: {content.message}")
        if kind in ("markdown", "alert", "heading", "text", "code_block"):
            self.texts.append(getattr(content, "body", "") or getattr(content, "code_text", ""))
        if kind in ("slider", "checkbox", "selectbox", "button_group") and not content.disabled:
            if kind == "selectbox" and (len(content.options) < 2 or not in_main):
                return  # those in the sidebar lead to pairs that nobody has computed
            self._controls[content.id] = (kind, content)
