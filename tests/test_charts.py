"""The charts of the benchmarks: drawn from the tables, and up to date with them."""

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[1] / "docs"
spec = importlib.util.spec_from_file_location("charts", DOCS / "charts.py")
charts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(charts)

PAGE = """# Benchmarks: bread

### 10 loaves

| | ms | least to most | rounds | times procession |
|---|--:|--:|--:|--:|
| procession | 1,234 | 1 to 2 | 7 | 1 |
| by hand & knife | 617 | 1 to 2 | 7 | 0.5 |
| a machine | 9 | 1 to 2 | 7 | 2,000.0 |

### 20 loaves

| | ms | least to most | rounds | times procession |
|---|--:|--:|--:|--:|
| procession | 5 | 1 to 2 | 7 | 1 |
| by hand | 5 | 1 to 2 | 7 | 1 |

### alone

| | ms | least to most | rounds | times procession |
|---|--:|--:|--:|--:|
| procession | 5 | 1 to 2 | 7 | 1 |
"""


@pytest.mark.parametrize("name", list(charts.charts()))
def test_charts_are_up_to_date(name):
    """With the tables as they stand in the documentation: else `python docs/charts.py` draws them anew."""
    drawn = (DOCS / "images" / name).read_text(encoding="utf-8")
    assert drawn == charts.charts()[name], "the tables have changed: run `python docs/charts.py`"
    assert f"](images/{name})" in (DOCS / "benchmarks-overview.md").read_text(encoding="utf-8")


def test_every_page_of_benchmarks_is_drawn_and_has_its_link():
    """On one page."""
    pages = {path.stem for path in DOCS.glob("benchmarks*.md")} - {"benchmarks-overview"}
    linked = set(
        re.findall(r"\]\((benchmarks[\w-]*)\.md\)", (DOCS / "benchmarks-overview.md").read_text(encoding="utf-8"))
    )
    assert linked == pages == set(charts.PAGES)


def test_a_chart_has_a_bar_for_each_contestant():
    """Twice as long lies as far to the right as half as long to the left; the longest reaches the edge."""
    (table,) = charts.tables_of(PAGE)
    svg = ElementTree.fromstring(charts.chart_of([table], "bread"))
    texts = [text.text for text in svg.findall(".//{*}text")]
    assert texts == ["10 loaves", "procession", "1,234 ms", "by hand & knife", "0.5 ×", "a machine", "2e+03 ×"]
    ours, half, edge = ((float(one.get("x")), float(one.get("width"))) for one in svg.findall(".//{*}rect"))
    scale = charts.Scale(0.5, 2_000.0)
    assert half[1] == pytest.approx(scale.x(2.0) - scale.x(1.0), abs=0.11)
    assert half[0] + half[1] == pytest.approx(ours[0] + ours[1] / 2, abs=0.11)
    assert edge[0] + edge[1] == pytest.approx(374, abs=0.11)
