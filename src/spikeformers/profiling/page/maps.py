"""Firing rates in colour over the samples' images."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from .words import percent

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


def rate_maps(samples: Sequence[dict]) -> dict | None:
    """The samples' images as data URIs. A stage's colours mean the same rate in all samples. The brightest stands for the
    99th percentile of its rates and all above, so that a few places (often a border) do not darken the rest."""
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


def side_by_side(models: Sequence[dict], maps: Sequence[Sequence[dict]]) -> dict | None:
    """The first samples' maps of all models below each other; None if they are not of the same samples and stages."""
    shown = [(model["label"], samples) for model, samples in zip(models, maps, strict=False) if samples]
    seen = {
        tuple((sample["label"], *(stage["name"] for stage in sample["stages"])) for sample in samples[:SIDE_BY_SIDE])
        for _, samples in shown
    }
    if len(shown) < 2 or len(seen) > 1:
        return None
    rows = zip(*(samples[:SIDE_BY_SIDE] for _, samples in shown), strict=True)
    return rate_maps(
        [{**sample, "model": label} for row in rows for (label, _), sample in zip(shown, row, strict=True)]
    )


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
