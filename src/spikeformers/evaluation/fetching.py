"""Weights and configurations of other libraries that are not on this disk: said before they are fetched."""

import os
import urllib.error
import urllib.request
from pathlib import Path

import torch

from ..transforms.sta.sources import LIBRARIES


def must_be_had(name: str, weights: str | Path | None) -> None:
    """Says what `load_source` is going to fetch from a network, and that there is none within seconds, where libraries try for a minute.

    Raises:
        ValueError: what it needs is not on this disk, and its server cannot be reached.
    """
    found = _to_fetch(name, weights)
    if found is None:
        return
    what, url = found
    instead = (
        "give a file with --weights"
        if what == "pretrained weights"
        else "give a folder that holds them: transformers:FOLDER"
    )
    advice = f"fetch them once where there is a network (they are then kept in the library's cache), or {instead}"
    offline = [
        key
        for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        if os.environ.get(key, "").upper() in ("1", "ON", "YES", "TRUE")
    ]
    if offline:
        raise ValueError(
            f"the {what} of {name} are not on this disk, and {offline[0]} forbids to download them; {advice}, or unset {offline[0]}"
        )
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=REACHED_WITHIN).close()
    except urllib.error.HTTPError:  # it answers
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(
            f"the {what} of {name} are not on this disk, and {url} cannot be reached ({reason}); {advice}"
        ) from None
    print(f"{name}: fetching its {what} from {url}; they are kept in the library's cache", flush=True)


REACHED_WITHIN = 5.0  # seconds


def _to_fetch(name, weights):
    """What is missing on this disk and the address of who has it; None if nothing is, or the library does not know the name."""
    from huggingface_hub import constants, try_to_load_from_cache

    library, _, rest = name.partition(":")
    if library not in LIBRARIES or not rest:
        library, rest = "timm", name

    def cached(repository, *files):
        return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)

    try:
        if library == "transformers":
            place, _, last = rest.rpartition(":")
            place = rest if not place or not last[:1].isupper() else place
            if Path(place).is_dir() or place.startswith((".", "/", "~")) or cached(place, "config.json"):
                return None
            return "configuration and weights", f"{constants.ENDPOINT}/{place}"
        if weights is not None:
            return None
        if library == "timm":
            import timm

            known = timm.models.get_pretrained_cfg(rest)
            if (
                known is None
                or not known.has_weights
                or not known.hf_hub_id
                or cached(known.hf_hub_id, "model.safetensors", "pytorch_model.bin")
            ):
                return None
            return "pretrained weights", f"{constants.ENDPOINT}/{known.hf_hub_id}"
        import torchvision

        url = torchvision.models.get_model_weights(rest).DEFAULT.url
        there = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        return None if there.is_file() else ("pretrained weights", url)
    except (ValueError, RuntimeError, AttributeError):  # no such name, of which `load_source` says what there is
        return None
