"""What the page shows of a profile, and of several side by side."""

from collections.abc import Iterable, Sequence

from .charts import COLOURS, bar_groups, line_chart, scatter, sparkline
from .maps import rate_maps
from .words import against_ann, count, energy, percent


def contents_of(report: dict, identifier: str, label: str, samples: Sequence[dict]) -> dict:
    """A report and everything that is drawn of it.

    Args:
        report: content of a profile.json.
        identifier: in the document.
        label: for people.
        samples: with firing-rate maps, see `page`.
    """
    stages = _stages(report)
    mean = _mean_per_step([layer for stage in stages for layer in stage["rates"]])
    views = []
    if len(mean) > 1:
        lines = {"Stages": [(stage["name"], _mean_per_step(stage["rates"])) for stage in stages if stage["rates"]]}
        lines |= {
            f"Layers of {s['name']}": [(name, steps) for name, steps, _ in s["rates"]] for s in stages if s["rates"]
        }
        views = [
            line_chart(title, of, "input firing rate", ("Mean of all layers", mean)) for title, of in lines.items()
        ]
    accuracy = report["accuracy_per_step"] or []
    spent, ann = report["totals"]["energy_mj"], report["ann"]["energy_mj"]
    peak = max((max(neuron["rate_per_step"] or [0]) for neuron in report["neurons"]), default=0) or 1
    return {
        **report,
        "id": identifier,
        "label": label,
        "ratio": against_ann(spent, ann),
        "factor": ann / spent if spent else None,
        "stages": stages,
        "bars": bar_groups(
            (
                stage["name"],
                f"{energy(stage['energy_mj'])}, {count(stage['ac'] + stage['mac'])} operations",
                stage["layers"],
            )
            for stage in stages
        ),
        "mean_per_step": mean,
        "views": views,
        "accuracy_chart": line_chart("Accuracy", [("Accuracy", accuracy)], "accuracy") if len(accuracy) > 1 else None,
        "sparklines": [sparkline(neuron["rate_per_step"] or [], peak) for neuron in report["neurons"]],
        "maps": rate_maps(samples),
        "early_exit": _early_exit(report.get("early_exit")),
        "event_driven": report.get("event_driven"),  # older profiles have none of these
        "honest": report.get("honest"),
        "merged": report.get("merged"),
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
                "layers": [
                    _bar(label, layer, report["constants"])
                    for label, layer in zip(_labels(layers), layers, strict=True)
                ],
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
    return [
        f"{layer['name']} ({layer['type']})" if names.count(layer["name"]) > 1 else layer["name"] for layer in layers
    ]


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


def _early_exit(points: Sequence[dict] | None) -> dict | None:
    """The curve of a network with early classifiers, whose last point is the network without them; older profiles have none."""
    if not points:
        return None
    named = [
        {**point, "name": f"confidence {point['confidence']:g}", "label": f"{point['confidence']:g}", "style": "s0"}
        for point in sorted(points[:-1], key=lambda point: point["confidence"])
    ]
    named.append({**points[-1], "name": "none leaves early", "label": "none leaves early", "style": "s1"})
    return {"points": named, "plot": scatter(named, joined=len(points) - 1), "whole": points[-1]["time_steps"]}


def comparison_of(models: Sequence[dict]) -> dict:
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
        "bars": bar_groups((name, "", items) for name, items in groups.items()),
        "scatter": scatter(points),
        "rates": line_chart("Mean of all layers", means, "input firing rate")
        if any(len(v) > 1 for _, v in means)
        else None,
        "comparable": len(accountings) == 1 and len(constants) == 1,
    }
