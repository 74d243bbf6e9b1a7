"""Geometry of the page's charts: bars, lines over time, and points of accuracy over energy."""

import math
from collections.abc import Iterable, Sequence

from .words import energy, percent, shortened

COLOURS, DASHES = 8, ("none", "7 3", "2 3", "9 3 2 3")  # of lines: what the colours cannot tell apart, the dashes do
MEASURES = {"energy": "Energy per sample", "ops": "Operations per sample", "rate": "Firing rate of the input"}


def bar_groups(groups: Iterable[tuple[str, str, Sequence[dict]]]) -> list[dict]:
    """Groups (name, summary, bars), with the parts of every bar in % of the longest bar of its measure."""
    groups = list(groups)
    drawn = [
        {"name": name, "summary": summary, "items": [dict(item) for item in items]} for name, summary, items in groups
    ]
    for measure in MEASURES:
        longest = (
            max((sum(v for _, v in item[measure][0]) for group in drawn for item in group["items"]), default=0) or 1
        )
        for item in (item for group in drawn for item in group["items"]):
            parts, text, kind = item[measure]
            parts = [(part, 100 * value / longest) for part, value in parts if value > 0]
            item[measure] = {"parts": parts, "text": text, "kind": kind}
    return drawn


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `wanted` of them."""
    rough = (high - low) / wanted
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def line_chart(
    title: str,
    series: Sequence[tuple[str, Sequence[float]]],
    measure: str,
    mean: tuple[str, Sequence[float]] | None = None,
) -> dict:
    """A line chart of shares over time steps, 0 % at the bottom.

    Args:
        title: of the chart.
        series: a name and the shares of consecutive steps for each line.
        measure: the name of the shares.
        mean: one more line, drawn thicker.
    """
    width, height, left, right, top, bottom = 720, 300, 78, 16, 14, 46
    styled = [("mean", "none", *mean)] if mean else []
    styled += [(f"s{i % COLOURS}", DASHES[i // COLOURS % len(DASHES)], *line) for i, line in enumerate(series)]
    steps = max(len(values) for *_, values in styled)
    ticks = _ticks(0, max(max(values) for *_, values in styled) or 0.01)
    every = math.ceil(steps / 16)

    def x(step):
        return round(left + (width - left - right) * (step - 0.5) / steps, 1)

    def y(value):
        return round(height - bottom - (height - top - bottom) * value / ticks[-1], 1)

    lines = []
    for style, dash, name, values in styled:
        points = [(x(step), y(value), step, percent(value)) for step, value in enumerate(values, 1)]
        path = " ".join(f"{px},{py}" for px, py, *_ in points)
        lines.append({"name": name, "style": style, "dash": dash, "points": points, "path": path, "values": values})
    return {
        "title": title,
        "measure": measure,
        "width": width,
        "height": height,
        "box": (left, top, width - right, height - bottom),
        "steps": steps,
        "x_ticks": [(x(step), step) for step in range(1, steps + 1, every)],
        "y_ticks": [(y(tick), percent(tick)) for tick in ticks],
        "lines": lines,
    }


def sparkline(values: Sequence[float], peak: float) -> str:
    """Points of a line in a box of 60 x 16."""
    gap = 56 / max(1, len(values) - 1)
    return " ".join(f"{2 + gap * i:.1f},{14 - 12 * value / peak:.1f}" for i, value in enumerate(values))


def scatter(points: Sequence[dict], joined: int = 0) -> dict | None:
    """Accuracy over energy, logarithmic where the energies span more than a factor of 20; None if nothing can be shown.

    Args:
        points: dicts of `name`, `label` (the same or shorter), `style`, `accuracy` and `energy_mj`.
        joined: how many of them, from the first on, a line joins. Of those that lie on one another the first is labelled for all.
    """
    shown = [point for point in points if point["accuracy"] is not None and point["energy_mj"] > 0]
    if not shown:
        return None
    width, height, left, right, top, bottom = 720, 400, 78, 20, 20, 48
    energies = [point["energy_mj"] for point in shown]
    accuracies = [point["accuracy"] for point in shown]
    logarithmic = max(energies) > 20 * min(energies)
    if logarithmic:
        low, high = math.floor(math.log10(min(energies) * 0.8)), math.ceil(math.log10(max(energies) * 1.25))
        factors = {1: (1, 2, 5), 2: (1, 3)}.get(high - low, (1,))  # as many labels as have room
        x_ticks = [factor * 10.0**power for power in range(low, high) for factor in factors] + [10.0**high]
    else:
        x_ticks = _ticks(0, max(energies) * 1.1)
    margin = max(0.01, 0.15 * (max(accuracies) - min(accuracies)))
    y_ticks = [t for t in _ticks(max(0, min(accuracies) - margin), min(1, max(accuracies) + margin)) if 0 <= t <= 1]

    scale = math.log10 if logarithmic else float

    def x(value):
        share = (scale(value) - scale(x_ticks[0])) / (scale(x_ticks[-1]) - scale(x_ticks[0]))
        return left + (width - left - right) * share

    def y(value):
        return height - bottom - (height - top - bottom) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    box = (left, top, width - right, height - bottom)
    places = [(round(x(point["energy_mj"]), 1), round(y(point["accuracy"]), 1)) for point in shown]
    texts = [shortened(point["label"]) for point in shown]
    first, joined = 0, sum(point in shown for point in points[:joined])
    for last in range(1, joined):
        if math.dist(places[first], places[last]) < 10:
            texts[first], texts[last] = f"{shown[first]['label']} to {shown[last]['label']}", ""
        else:
            first = last
    labels = _place_labels(places, texts, box)
    return {
        "width": width,
        "height": height,
        "box": box,
        "logarithmic": logarithmic,
        "x_ticks": [(round(x(tick), 1), energy(tick)) for tick in x_ticks],
        "y_ticks": [(round(y(tick), 1), percent(tick)) for tick in y_ticks],
        "points": [
            {**point, "x": px, "y": py, "label": label}
            for (px, py), label, point in zip(places, labels, shown, strict=True)
        ],
        "path": " ".join(f"{px},{py}" for px, py in places[:joined]),
        "missing": [point["name"] for point in points if point not in shown],
    }


def _place_labels(points: Sequence[tuple[float, float]], texts: Sequence[str], box: tuple) -> list[dict]:
    """Where each point's label stands: the nearest of many places that covers no point, no other label and no border."""
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in points]
    left, top, right, bottom = box

    def badness(place):
        overlaps = sum(
            max(0, min(place[2], other[2]) - max(place[0], other[0]))
            * max(0, min(place[3], other[3]) - max(place[1], other[1]))
            for other in taken
        )
        outside = sum(max(0, v) for v in (left - place[0], top - place[1], place[2] - right, place[3] - bottom))
        return overlaps + 20 * outside

    labels = []
    for (x, y), text in zip(points, texts, strict=True):
        wide, high = 7.2 * len(text), 16
        places = []
        for shift in range(0, 160, 8):
            for sign in (1, -1) if shift else (1,):
                middle = y + sign * shift
                places += [
                    (start, middle - high / 2, start + wide, middle + high / 2) for start in (x + 11, x - 11 - wide)
                ]
                if shift >= 16:
                    places.append((x - wide / 2, middle - high / 2, x + wide / 2, middle + high / 2))
        best = min(places, key=badness)  # of equally good ones the first, which is the nearest
        taken.append(best)
        start, end = best[0], best[2]
        anchor, at = ("end", end) if end < x else ("start", start) if start > x else ("middle", (start + end) / 2)
        middle = (best[1] + best[3]) / 2
        labels.append(
            {"text": text, "x": round(at, 1), "y": round(middle, 1), "anchor": anchor, "far": abs(middle - y) > 20}
        )
    return labels
