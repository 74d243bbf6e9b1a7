"""The report page: profiles as one self-contained HTML document that opens from disk and needs no network.

Geometry, colours and wording are computed in Python; page.html draws them. Everything is in the document before its script runs,
which only sorts, filters and switches: the page reads without it, and on paper.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jinja2

from ..saved import FORMAT
from .charts import MEASURES
from .contents import comparison_of, contents_of
from .maps import side_by_side
from .words import breakable, count, count_unit, energy, energy_unit, letter, percent, run_name, switches_of

__all__ = ["page"]


def page(reports: Sequence[dict], maps: Sequence[Sequence[dict]] = ()) -> str:
    """One HTML document about a profile, or one that compares several.

    Args:
        reports: contents of profile.json files: a single model, or the models to compare in this order.
        maps: firing-rate maps of each report's samples, or nothing. A sample is a dict of `label`, `prediction` (or None),
            `input` [H, W, 3] in [0, 1] and `stages`, each a dict of `name`, `rate` and `map` [h, w] of rates.
    Returns:
        The document, with styles, script and images inside.
    Raises:
        ValueError: there is no report, one has another format, or there are maps for another number of reports.
    """
    if not reports:
        raise ValueError("a page needs at least one profile; give the content of a profile.json")
    for number, report in enumerate(reports, 1):
        if report.get("format") != FORMAT:
            raise ValueError(
                f"profile {number} has the format {report.get('format')!r} and this version shows format {FORMAT}; "
                "profile the model again with this version"
            )
    if maps and len(maps) != len(reports):
        raise ValueError(f"there are maps for {len(maps)} reports, but {len(reports)} reports; give one list for each")
    titles = [report["title"] for report in reports]
    names = [run_name(report["title"], report["checkpoint"]) for report in reports]
    if len(set(names)) < len(set(titles)):  # runs of one name in several places
        names = titles
    alike = len(set(titles)) < len(titles)  # one checkpoint under several settings: most likely of the time steps
    models = []
    for index, (report, name, samples) in enumerate(zip(reports, names, maps or [()] * len(reports), strict=True)):
        label = f"{letter(index)}: {name}" + (f", T = {report['time_steps']}" if alike else "")
        models.append({**contents_of(report, f"m{index}", label, samples), "name": name})
    comparison = comparison_of(models) | {"maps": side_by_side(models, maps or [])} if len(models) > 1 else None
    return _template().render(models=models, comparison=comparison, measures=MEASURES)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "energy": energy,
        "percent": percent,
        "breakable": breakable,
        "size": math.prod,
        "switches": switches_of,
    }
    environment.globals |= {"energy_unit": energy_unit, "count_unit": count_unit}
    return environment.get_template("page.html")
