"""Figures as they are printed: measured in the files."""

import io
import re
import struct
import zlib
from dataclasses import replace

import plotly.graph_objects as go
import pytest
from PIL import Image

from dashboard import exports, paper
from dashboard.paper import Paper, printed
from dashboard.view import Choice
from dashboard.words import BIBTEX
from probing.cuts import Cut
from probing.pairs import load_registry

CAPTION = "Strengths <of> all edges & α."

needs_chrome = pytest.mark.skipif(paper.chrome() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def figure() -> go.Figure:
    drawn = go.Figure(go.Scatter(x=[1, 2], y=[1, 3], mode="lines", line={"width": 5}, name="edges", showlegend=True))
    return drawn.update_layout(height=300)


@needs_chrome
@pytest.mark.parametrize(("width", "letters"), [(88.0, 7.0), (180.0, 9.5)])
def test_an_svg_has_its_width_in_millimetres_its_letters_in_points_and_a_legend(
    figure: go.Figure, width: float, letters: float
) -> None:
    svg = printed(figure, "svg", Paper(width, letters), CAPTION).decode()
    (root,) = re.findall(r"<svg[^>]*class=\"main-svg\"[^>]*viewBox[^>]*>", svg)
    assert f'width="{width:g}mm"' in root
    units, high = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', root).groups())
    assert high == 300
    assert float(re.search(r'height="([\d.]+)mm"', root)[1]) == pytest.approx(width * high / units, abs=1e-3)
    (tick,) = set(re.findall(r'class="xtick"><text[^>]*font-size: ([\d.]+)px', svg))
    points = float(tick) * width / units / 25.4 * 72
    assert points == pytest.approx(letters, rel=0.005)
    assert 'class="legendtext"' in svg
    assert "<desc>Strengths &lt;of&gt; all edges &amp; α.</desc>" in svg


@needs_chrome
def test_a_png_has_300_dots_to_the_inch_and_its_caption(figure: go.Figure) -> None:
    picture = Image.open(io.BytesIO(printed(figure, "png", Paper(120.0, 8.0), CAPTION)))
    picture.load()
    assert picture.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
    assert picture.width / 300 * 25.4 == pytest.approx(120, rel=0.002)
    assert picture.info["Description"] == CAPTION


@needs_chrome
def test_a_pdf_is_as_wide_as_asked_and_is_not_a_picture(figure: go.Figure) -> None:
    pdf = printed(figure, "pdf", Paper(120.0, 8.0))
    (box,) = re.findall(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert float(box[0]) / 72 * 25.4 == pytest.approx(120, rel=0.004)
    assert b"/Font" in pdf
    assert b"/Subtype /Image" not in pdf


def test_a_png_with_more_chunks_is_sound() -> None:
    plain = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(plain, "PNG")
    made = paper._png(plain.getvalue(), CAPTION)
    place, kinds = 8, []
    while place < len(made):
        length, kind = struct.unpack(">I4s", made[place : place + 8])
        data = made[place + 8 : place + 8 + length]
        assert struct.unpack(">I", made[place + 8 + length : place + 12 + length])[0] == zlib.crc32(kind + data)
        kinds.append(kind)
        place += 12 + length
    assert kinds == [b"IHDR", b"pHYs", b"iTXt", b"IDAT", b"IEND"]


def test_a_files_name_and_caption_say_pair_questions_and_cut() -> None:
    pair = load_registry().pairs["ppo"]
    choice = Choice(pair, "addition", "both_wrong", Cut(0.5))
    assert exports.file_name(choice, "graph") == "ppo_addition_both-wrong_a0.5_graph"
    caption = exports.caption_of(choice, "A graph.")
    assert caption.startswith(f"A graph. {pair.arrow} (PPO), questions addition, both wrong, cut α = 0.5.")
    in_tokens = replace(choice, at=Cut(3, "tokens"))
    assert exports.file_name(in_tokens, "graph") == "ppo_addition_both-wrong_3-tokens_graph"
    assert ", cut first 3 tokens. " in exports.caption_of(in_tokens, "A graph.")


def test_bibtex_has_the_paper_and_this_program() -> None:
    assert re.findall(r"^@(\w+)\{(\w+),$", BIBTEX, re.MULTILINE) == [
        ("inproceedings", "zhang2026reinforcement"),
        ("software", "rlcircuitexplorer"),
    ]
    assert BIBTEX.count("{") == BIBTEX.count("}")
    assert "2509.21044" in BIBTEX
