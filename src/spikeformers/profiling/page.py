"""The report page: profiles as one self-contained HTML document that opens from disk and needs no network.

Geometry, colours and wording are computed here; page.html draws them. Everything is in the document before its script runs,
which only sorts, filters and switches: the page reads without it, and on paper.
"""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from .saved import FORMAT

# Evenly spaced in OKLab from dark violet to pale yellow, so that equal steps of the rate look equally large.
COLOUR_MAP = np.array(
    [
        (22, 2, 68),
        (63, 12, 94),
        (109, 26, 105),
        (155, 44, 102),
        (193, 72, 91),
        (221, 110, 80),
        (236, 154, 87),
        (241, 200, 126),
        (245, 242, 187),
    ]
)
SIDE_BY_SIDE = 4  # samples
LARGEST_MAP = 224  # pixels; larger inputs are shown smaller
COLOURS, DASHES = 8, ("none", "7 3", "2 3", "9 3 2 3")  # of lines: what the colours cannot tell apart, the dashes do
MEASURES = {"energy": "Energy per sample", "ops": "Operations per sample", "rate": "Firing rate of the input"}


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
    alike = len(set(titles)) < len(titles)  # one checkpoint under several settings: most likely of the time steps
    models = []
    for index, (report, samples) in enumerate(zip(reports, maps or [()] * len(reports), strict=True)):
        label = f"{_letter(index)}: {report['title']}" + (f", T = {report['time_steps']}" if alike else "")
        models.append(_model(report, f"m{index}", label, samples))
    comparison = _comparison(models) | {"maps": _side_by_side(models, maps or [])} if len(models) > 1 else None
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
        "millijoules": millijoules,
        "energy": energy,
        "percent": percent,
        "breakable": _breakable,
        "size": math.prod,
        "switches": _switches,
    }
    return environment.get_template("page.html")


def count(number: float | None) -> str:
    """Three digits and a prefix: 1.24 G, 8.1 M, 512."""
    if number is None:
        return "–"
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(number) >= 0.9995 * 10**power:
            return f"{_three_digits(number / 10**power)} {prefix}"
    return _three_digits(number)


def millijoules(number: float) -> str:
    """Three digits in mJ, the unit in which the field publishes: 0.113 mJ."""
    return f"{_three_digits(number)} mJ"


def energy(number: float | None) -> str:
    """Three digits of an energy in mJ, in the unit that suits it: 0.113 mJ, 45.2 µJ, 810 nJ."""
    if number is None:
        return "–"
    for unit, scale in (("mJ", 1), ("µJ", 1e3), ("nJ", 1e6)):
        if number * scale >= 0.09995:
            return f"{_three_digits(number * scale)} {unit}"
    return "0 µJ" if number == 0 else "< 0.1 nJ"


def percent(share: float | None) -> str:
    """Three digits in %: 12.9 %, 0.034 %."""
    if share is None:
        return "–"
    return "< 0.001 %" if 0 < share < 1e-5 else f"{_three_digits(100 * share)} %"


def _three_digits(number: float) -> str:
    if number == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _breakable(name: str) -> Markup:
    """A module's name that may wrap behind its dots, the path before the last part in grey; other text as it is."""
    if not name or " " in name:
        return escape(name or "(the model itself)")
    *path, last = name.split(".")
    before = Markup("").join(escape(part) + Markup(".<wbr>") for part in path)
    return Markup('<span class="path">{}</span>{}').format(before, last)


def _switches(switches: dict) -> str:
    return ", ".join(f"{name} = {value}" for name, value in switches.items()) or "none"


def _against_ann(energy_mj: float, ann_mj: float) -> str:
    if energy_mj == 0:
        return "no counted operation costs energy"
    ratio = ann_mj / energy_mj
    if 0.995 < ratio < 1.005:
        return "as much as the same layers as an ANN"
    if ratio > 1:
        return f"{_three_digits(ratio)} times less than the same layers as an ANN"
    return f"{_three_digits(1 / ratio)} times more than the same layers as an ANN"


def _letter(index: int) -> str:
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def _model(report: dict, identifier: str, label: str, samples: Sequence[dict]) -> dict:
    """A report and everything that is drawn of it."""
    stages = _stages(report)
    mean = _mean_per_step([layer for stage in stages for layer in stage["rates"]])
    views = []
    if len(mean) > 1:
        lines = {"Stages": [(stage["name"], _mean_per_step(stage["rates"])) for stage in stages if stage["rates"]]}
        lines |= {
            f"Layers of {s['name']}": [(name, steps) for name, steps, _ in s["rates"]] for s in stages if s["rates"]
        }
        views = [_lines(title, of, "input firing rate", ("Mean of all layers", mean)) for title, of in lines.items()]
    accuracy = report["accuracy_per_step"] or []
    spent, ann = report["totals"]["energy_mj"], report["ann"]["energy_mj"]
    peak = max((max(neuron["rate_per_step"] or [0]) for neuron in report["neurons"]), default=0) or 1
    return {
        **report,
        "id": identifier,
        "label": label,
        "ratio": _against_ann(spent, ann),
        "factor": ann / spent if spent else None,
        "stages": stages,
        "bars": _bars(
            (
                stage["name"],
                f"{energy(stage['energy_mj'])}, {count(stage['ac'] + stage['mac'])} operations",
                stage["layers"],
            )
            for stage in stages
        ),
        "mean_per_step": mean,
        "views": views,
        "accuracy_chart": _lines("Accuracy", [("Accuracy", accuracy)], "accuracy") if len(accuracy) > 1 else None,
        "sparklines": [_sparkline(neuron["rate_per_step"] or [], peak) for neuron in report["neurons"]],
        "maps": _maps(samples),
        "early_exit": _early_exit(report.get("early_exit")),
        "event_driven": report.get("event_driven"),  # older profiles have none of these
        "honest": report.get("honest"),
        "schedule": report.get("schedule"),
    }


def _stages(report: dict) -> list[dict]:
    """The counted layers by stage, in the network's order: sums, and the input rates per step of those that read spikes."""
    groups = {}
    for layer in report["layers"]:
        if layer["class"] != "free":
            groups.setdefault(layer["stage"], []).append(layer)
    stages = []
    for name, layers in groups.items():
        spiking = [layer for layer in layers if layer["kind"] in ("binary", "ternary") and layer["rate"] is not None]
        dense = sum(layer["dense"] for layer in spiking)
        stages.append(
            {
                "name": name,
                "layers": [_bar(label, layer, report["constants"]) for label, layer in zip(_labels(layers), layers, strict=True)],
                "energy_mj": sum(layer["energy_mj"] for layer in layers),
                "ac": sum(layer["ac"] for layer in layers),
                "mac": sum(layer["mac"] for layer in layers),
                "rate": sum(layer["rate"] * layer["dense"] for layer in spiking) / dense if dense else None,
                "rates": [
                    (item["name"], item["rate_per_step"], item["dense"])
                    for item in spiking
                    if item["rate_per_step"] and item["dense"]
                ],
            }
        )
    return stages


def _labels(layers: Sequence[dict]) -> list[str]:
    """Names of layers, with their type where a module computes several times."""
    names = [layer["name"] for layer in layers]
    return [f"{layer['name']} ({layer['type']})" if names.count(layer["name"]) > 1 else layer["name"] for layer in layers]


def _mean_per_step(rates: Iterable[tuple[str, Sequence[float], float]]) -> list[float]:
    """At each step the mean of the layers that have one, weighted by their dense operations."""
    rates = [(steps, dense) for _, steps, dense in rates]
    means = []
    for step in range(max((len(steps) for steps, _ in rates), default=0)):
        there = [(steps[step], dense) for steps, dense in rates if step < len(steps)]
        means.append(sum(rate * dense for rate, dense in there) / sum(dense for _, dense in there))
    return means


def _bar(name: str, counted: dict, constants: dict) -> dict:
    """A layer's or a stage's values for the three measures, each as parts of AC and MAC, or of neither for the rate."""
    ac, mac = counted["ac"], counted["mac"]
    of_mac = mac * constants["mac"]
    share = of_mac / (of_mac + ac * constants["ac"]) if ac or mac else 0.0
    total = counted["energy_mj"]
    kind = "AC and MAC" if ac and mac else "MAC" if mac else "AC"
    rate = counted["rate"]
    return {
        "name": name,
        "energy": ([("ac", total * (1 - share)), ("mac", total * share)], f"{energy(total)}", kind),
        "ops": ([("ac", ac), ("mac", mac)], count(ac + mac), kind),
        "rate": _rate_bar(counted.get("kind"), rate),
    }


def _rate_bar(kind: str | None, rate: float | None) -> tuple:
    """Only spikes have a rate; of integers the mean level is named."""
    if kind == "real":
        return [("rate", 0.0)], "real input", ""
    if kind == "integer" and rate is not None:
        return [("rate", 0.0)], f"integers, {rate:.3g} on average", ""
    return [("rate", rate or 0.0)], percent(rate), ""


def _bars(groups: Iterable[tuple[str, str, Sequence[dict]]]) -> list[dict]:
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


def _lines(
    title: str,
    series: Sequence[tuple[str, Sequence[float]]],
    measure: str,
    mean: tuple[str, Sequence[float]] | None = None,
) -> dict:
    """A line chart of shares over time steps, 0 % at the bottom; `mean` is drawn thicker than the other series."""
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


def _sparkline(values: Sequence[float], peak: float) -> str:
    """Points of a line in a box of 60 x 16."""
    gap = 56 / max(1, len(values) - 1)
    return " ".join(f"{2 + gap * i:.1f},{14 - 12 * value / peak:.1f}" for i, value in enumerate(values))


def _early_exit(points: Sequence[dict] | None) -> dict | None:
    """The curve of a network with early classifiers, whose last point is the network without them; older profiles have none."""
    if not points:
        return None
    named = [
        {**point, "name": f"confidence {point['confidence']:g}", "label": f"{point['confidence']:g}", "style": "s0"}
        for point in sorted(points[:-1], key=lambda point: point["confidence"])
    ]
    named.append({**points[-1], "name": "none leaves early", "label": "none leaves early", "style": "s1"})
    return {"points": named, "plot": _scatter(named, joined=len(points) - 1), "whole": points[-1]["time_steps"]}


def _scatter(points: Sequence[dict], joined: int = 0) -> dict | None:
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
    texts = [_shortened(point["label"]) for point in shown]
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


def _shortened(text: str, longest: int = 34) -> str:
    """With the middle left out: titles that are alike differ at their ends."""
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


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


def _comparison(models: Sequence[dict]) -> dict:
    """What the page shows of several models together: by layer where their layers have the same names, else by stage."""
    names = [[layer["name"] for stage in model["stages"] for layer in stage["layers"]] for model in models]
    by_layer = all(other == names[0] for other in names)
    groups = {}
    for model in models:
        constants = model["constants"]
        for stage in model["stages"]:
            bars = stage["layers"] if by_layer else [_bar(stage["name"], stage, constants)]
            for bar in bars:
                groups.setdefault(bar["name"], []).append({**bar, "name": model["label"]})
    accountings = {(model["preset"], *sorted(map(str, model["switches"].items()))) for model in models}
    constants = {tuple(sorted(model["constants"].items())) for model in models}
    points = [
        {
            "name": model["label"],
            "label": model["label"],
            "style": f"s{index % COLOURS}",
            "accuracy": model["accuracy"],
            "energy_mj": model["totals"]["energy_mj"],
        }
        for index, model in enumerate(models)
    ]
    means = [(model["label"], model["mean_per_step"]) for model in models if model["mean_per_step"]]
    return {
        "by_layer": by_layer,
        "bars": _bars((name, "", items) for name, items in groups.items()),
        "scatter": _scatter(points),
        "rates": _lines("Mean of all layers", means, "input firing rate")
        if any(len(v) > 1 for _, v in means)
        else None,
        "comparable": len(accountings) == 1 and len(constants) == 1,
    }


def _maps(samples: Sequence[dict]) -> dict | None:
    """The samples' images as data URIs. A stage's colours mean the same rate in all samples; the brightest stands for its
    99th percentile and all above, so that a few places (often a border) do not darken the rest."""
    if not samples:
        return None
    names = [stage["name"] for stage in samples[0]["stages"]]
    columns = []
    for index, name in enumerate(names):
        rates = np.concatenate([np.ravel(sample["stages"][index]["map"]) for sample in samples])
        top = float(np.percentile(rates, 99, method="higher")) or float(rates.max())
        columns.append((name, top, bool(rates.max() > top)))
    rows = []
    for sample in samples:
        image = _as_image(np.asarray(sample["input"], float))
        image.thumbnail((LARGEST_MAP, LARGEST_MAP))
        shown = [
            {
                "source": _data_uri(_overlay(image, np.asarray(stage["map"], float), top)),
                "rate": stage["rate"],
                "where": _brightest(np.asarray(stage["map"], float)),
            }
            for stage, (_, top, _) in zip(sample["stages"], columns, strict=True)
        ]
        rows.append({**sample, "source": _data_uri(image), "stages": shown})
    colours = ", ".join(f"rgb({r} {g} {b})" for r, g, b in COLOUR_MAP)
    return {
        "columns": columns,
        "rows": rows,
        "gradient": f"linear-gradient(90deg, {colours})",
    }


def _side_by_side(models: Sequence[dict], maps: Sequence[Sequence[dict]]) -> dict | None:
    """The first samples' maps of all models below each other; None if they are not of the same samples and stages."""
    shown = [(model["label"], samples) for model, samples in zip(models, maps, strict=False) if samples]
    seen = {
        tuple((sample["label"], *(stage["name"] for stage in sample["stages"])) for sample in samples[:SIDE_BY_SIDE])
        for _, samples in shown
    }
    if len(shown) < 2 or len(seen) > 1:
        return None
    rows = zip(*(samples[:SIDE_BY_SIDE] for _, samples in shown), strict=True)
    return _maps([{**sample, "model": label} for row in rows for (label, _), sample in zip(shown, row, strict=True)])


def _as_image(pixels: np.ndarray) -> Image.Image:
    """[H, W, 3] in [0, 1] -> an RGB image."""
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))


def _overlay(image: Image.Image, rates: np.ndarray, highest: float) -> Image.Image:
    """Rates [h, w] in colour over the grey image: little colour where little fires, so that the image shows."""
    share = np.clip(rates / highest, 0, 1) if highest > 0 else np.zeros_like(rates)
    share = np.asarray(Image.fromarray(share.astype(np.float32)).resize(image.size, Image.Resampling.NEAREST))
    places = np.linspace(0, 1, len(COLOUR_MAP))
    colour = np.stack([np.interp(share, places, channel / 255) for channel in COLOUR_MAP.T], axis=-1)
    grey = np.asarray(image.convert("L"), float)[..., None] / 255
    opacity = 0.15 + 0.75 * share[..., None]
    return _as_image((1 - opacity) * grey * 0.6 + opacity * colour)


def _brightest(rates: np.ndarray) -> str:
    """Where in the picture the highest rate lies, for those who do not see it."""
    if rates.max() == 0:
        return "silent everywhere"
    row, column = np.unravel_index(rates.argmax(), rates.shape)
    vertical = ("top", "middle", "bottom")[3 * row // rates.shape[0]]
    horizontal = ("left", "centre", "right")[3 * column // rates.shape[1]]
    return f"highest with {percent(float(rates.max()))} at the {vertical} {horizontal}"


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
