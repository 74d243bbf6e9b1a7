from html.parser import HTMLParser

import torch

from spikeformers import audit, create_model, profile
from spikeformers._notebook import MOST_ROWS, Table, Tabular


class _Text(HTMLParser):
    """What a notebook shows of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.cells, self.rows = [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.rows += tag == "tr"

    def handle_data(self, data):
        self.cells.append(data)


def test_tables_escape_and_end():
    page = Table([("<b>", "1 & 2")] * (MOST_ROWS + 5), ("a", "b"), "x < y", folded=True).html()
    text = _Text(page)
    assert "<b>" in text.cells and "1 & 2" in text.cells and "x < y" in text.cells and "<b>" not in page
    assert text.rows == 1 + MOST_ROWS + 1 and "... and 5 more" in text.cells


def test_a_prompt_shows_the_text():
    class Result(Tabular):
        def __str__(self):
            return "result: 3"

        def tables(self):
            return [Table([("a", "1")])]

    assert repr(Result()) == "result: 3"
    assert _Text(Result()._repr_html_()).cells == ["a", "1"]


def test_profiles_and_audits_are_tables():
    model = create_model("spiking_resnet_edge", time_steps=1).eval()
    x = torch.rand(2, 3, 32, 32)
    result, found = profile(model, x), audit(model, x)
    for shown in (result, found):
        assert repr(shown) == str(shown) and len(repr(shown)) < 5_000
        assert len(shown._repr_html_()) < 60_000
    cells = _Text(result._repr_html_()).cells
    assert "firing rate" in cells and f"{len(result.layers)} layers" in cells
    assert result.layers[1].name in cells and f"{result.layers[1].ac:,.0f}" in cells
    cells = _Text(found._repr_html_()).cells
    assert found.verdict in cells and all(finding.module in cells for finding in found.offending[:MOST_ROWS])
