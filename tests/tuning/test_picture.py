"""The picture is a whole SVG that shows every figure."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctbatch.tuning.figures import Setting
from ctbatch.tuning.picture import picture, ticks
from tests.tuning.figured import figures

SVG = "{http://www.w3.org/2000/svg}"


def test_every_figure_is_a_point_on_its_curve() -> None:
    """One curve for each batch size and number of workers, in both panels, within the picture."""
    tried = [
        figures(concurrency, 1000.0 * concurrency, batch_size=size, certain=concurrency < 15)
        for size in (250, 1000)
        for concurrency in (1, 8, 15)
    ]
    root = ElementTree.fromstring(picture(tried, Setting(8, 1000, 0), "a < b"))  # noqa: S314  # ours
    points = [c for c in root.iter(f"{SVG}circle") if c.find(f"{SVG}title") is not None]
    assert len(points) == 2 * len(tried)
    for point in points:
        assert 0 < float(point.attrib["cx"]) < float(root.attrib["width"])
        assert 0 < float(point.attrib["cy"]) < float(root.attrib["height"])
    curves = [p for p in root.iter(f"{SVG}path") if p.attrib.get("fill") == "none"]
    assert len(curves) == 4
    assert len([c for c in root.iter(f"{SVG}circle") if c.attrib["r"] == "8"]) == 3
    assert sum(point.attrib["fill"] == "white" for point in points) == 4
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert "a < b" in words
    assert {"1,000 a batch, 0 workers", "250 a batch, 0 workers"} <= set(words)


def test_higher_is_faster() -> None:
    """More lines per second are nearer to the top."""
    tried = [figures(1, 100.0), figures(2, 200.0)]
    root = ElementTree.fromstring(picture(tried, None, ""))  # noqa: S314  # ours
    slow, fast, *_ = [c for c in root.iter(f"{SVG}circle") if c.find(f"{SVG}title") is not None]
    assert float(fast.attrib["cy"]) < float(slow.attrib["cy"])
    assert float(fast.attrib["cx"]) > float(slow.attrib["cx"])


def test_nothing_measured_is_an_empty_picture() -> None:
    """It is drawn all the same."""
    assert picture([], None, "").startswith("<svg")


@pytest.mark.parametrize(
    ("top", "marks"),
    [(0, [0, 1]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (75_000, [0, 20_000, 40_000, 60_000, 80_000])],
)
def test_ticks_are_round(top: float, marks: list[float]) -> None:
    """An axis is read at a glance."""
    assert ticks(top) == pytest.approx(marks)


@given(st.floats(1e-3, 1e9))
def test_ticks_cover_everything(top: float) -> None:
    """From nothing to just above the largest, in at most five steps."""
    marks = ticks(top)
    assert marks[0] == 0
    assert marks[-1] >= top * (1 - 1e-9)
    assert len(marks) <= 6
