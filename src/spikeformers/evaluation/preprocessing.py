"""How a network wants its images, and who says so."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from timm.data import resolve_data_config
from torch import nn

from .._files import read_text
from .._options import misfit
from ..data import ImageData


def preprocessing(model: nn.Module, weights: str | Path | None = None) -> tuple[dict[str, Any], str]:
    """How a network that no run has described wants its images, as settings of `ImageData`, and who says so.

    Args:
        model: a network of timm, or one with a `pretrained_cfg` like theirs.
        weights: the file that its weights are from, if not the library's own. A config.json beside it with a pretrained_cfg, as timm
            writes, counts; otherwise what is said of the library's weights is a guess.
    """
    given, said = getattr(model, "pretrained_cfg", None) or {}, "ImageNet's, since nothing says"
    if "mean" in given or "input_size" in given:
        said = "as the library describes its own weights of that network"
    if weights is not None:
        beside = Path(weights).with_name("config.json")
        described = _pretrained_cfg(beside)
        if described:
            given, said = {**given, **described}, f"as {beside} says"
    known = resolve_data_config(
        {"mean": None}, pretrained_cfg=given
    )  # it refuses to say what it takes where nothing is given
    made_for = getattr(
        getattr(model, "patch_embed", None), "img_size", None
    )  # which may differ from what it was pretrained on
    settings = {
        "img_size": made_for[0] if made_for else known["input_size"][-1],
        "channels": known["input_size"][0],
        **{key: known[key] for key in ("mean", "std", "interpolation", "crop_pct")},
    }
    return settings, said


def _pretrained_cfg(path):
    with suppress(OSError, ValueError, RecursionError, AttributeError):
        found = json.loads(read_text(path)).get("pretrained_cfg")
        wanted = {
            "input_size": tuple[int, int, int],
            "mean": tuple[float, ...],
            "std": tuple[float, ...],
            "interpolation": str,
            "crop_pct": float,
        }
        if isinstance(found, dict):
            fitting_ones = {
                key: found[key] for key, hint in wanted.items() if key in found and not misfit(found[key], hint)
            }
            return {key: tuple(value) if isinstance(value, list) else value for key, value in fitting_ones.items()}
    return {}


def prepared_text(data: ImageData) -> str:
    """How images are prepared, in words."""
    numbers = (f"{name} {', '.join(f'{value:.4g}' for value in getattr(data, name))}" for name in ("mean", "std"))
    return f"{data.channels} x {data.img_size} x {data.img_size}, {', '.join(numbers)}, {data.interpolation}, crop_pct {data.crop_pct:.4g}"
