"""Several profiles side by side."""

import os
from collections.abc import Sequence
from pathlib import Path

from .._files import as_csv, write_atomically, write_json
from .page import page
from .saved import FORMAT, wrong_with


def compare(reports: Sequence[dict], folder: str | os.PathLike, maps: Sequence[Sequence[dict]] = ()) -> None:
    """Writes report.html, with several profiles side by side, comparison.csv, one row for each, and profiles.json.

    Args:
        reports: contents of profile.json, as `Profile.to_dict` gives them.
        folder: where the files go.
        maps: of each profile, as in `Profile.maps`.

    Raises:
        ValueError: they were accounted for by different presets, switches or constants, or are no profiles.
    """
    for number, report in enumerate(reports, 1):
        if wrong := wrong_with(report):
            raise ValueError(f"profile {number} is damaged: {wrong}; profile the model again")
    ways = {str([report[key] for key in ("preset", "switches", "constants")]): report for report in reports}
    if len(ways) > 1:
        first, second = list(ways.values())[:2]
        raise ValueError(
            f"{first['title']} was accounted for by {first['preset']} {first['switches']} and {second['title']} by {second['preset']} "
            f"{second['switches']}; profile both by the same preset, switches and constants"
        )
    rows = [
        {
            **{
                key: report[key]
                for key in ("title", "model", "parameters", "data", "samples", "time_steps", "accuracy", "mean_rate")
            },
            **{key: report["totals"][key] for key in ("dense", "ac", "mac", "energy_mj")},
            "ann_energy_mj": report["ann"]["energy_mj"],
            "additions_only_merged": (report["audit_merged"] or {}).get("additions_only"),
        }
        for report in reports
    ]
    folder = Path(folder)
    write_json(folder / "profiles.json", {"format": FORMAT, "profiles": list(reports)})
    write_atomically(folder / "comparison.csv", as_csv(rows).encode())
    write_atomically(folder / "report.html", page(reports, maps).encode())
