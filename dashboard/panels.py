"""Which of the panels in which a circuit is drawn is shown first."""

from collections.abc import Mapping

TOGETHER = "side by side"
"""All of them."""


def usual(headers: Mapping[str, str], together: str = TOGETHER, alone: str = "difference") -> str:
    """Which is shown first to a browser that sends such headers: on a phone, where several would have to be scrolled,
    one alone.

    The width of a window is not known here; phones say that they are some in `Sec-CH-UA-Mobile` or, where a browser
    does not send that, by the word "Mobi" in `User-Agent`.
    """
    is_phone = headers.get("Sec-CH-UA-Mobile") == "?1" or "Mobi" in headers.get("User-Agent", "")
    return alone if is_phone else together
