"""profile.json as `Profile.to_dict` writes it: what it holds, and reading it back."""

import json
import os
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from .._files import read_text
from .._options import misfit

FORMAT = 1
SMALLEST, LARGEST = 1e-30, 1e30  # of a cost; the page adds costs up and takes their logarithms


class Totals(TypedDict):
    """Operations and energy of a sample."""

    ac: float
    mac: float
    dense: float
    energy_mj: float


class Ann(TypedDict):
    """The same of the dense network that multiplies everything."""

    dense: float
    energy_mj: float


class SavedConstants(TypedDict):
    """pJ of a multiplication with addition, of an addition and of a neuron's update."""

    mac: float
    ac: float
    neuron: float


SavedLayer = TypedDict(
    "SavedLayer",
    {
        **dict.fromkeys(("name", "type", "stage"), str),
        "parameters": int,
        "kind": str | None,
        "class": Literal["AC", "MAC", "free"],
        "rate": float | None,
        "rate_per_step": list[float],
        **dict.fromkeys(("dense", "ac", "mac", "energy_mj", "ann_energy_mj"), float),
        "output_shape": list[int],
    },
)


class SavedNeurons(TypedDict):
    """A layer of neurons, its firing rate and what it computes for a sample."""

    name: str
    stage: str
    rate: float | None
    rate_per_step: list[float]
    shape: list[int]
    description: str
    additions: NotRequired[float]
    multiplications: NotRequired[float]


class SavedMerged(Totals):
    """The same of the merged network on its samples, and the energy of the network as it is on these."""

    samples: int
    before_mj: float


class Preset(Totals):
    """Operations and energy as one preset counts them."""

    preset: str
    switches: dict[str, str | int | bool]


class SavedFinding(TypedDict):
    """An operation that the audit names."""

    module: str
    operation: str
    operands: list[str]
    share: float
    reason: str
    remedy: str


class SavedAudit(TypedDict):
    """Whether the network only adds, and where it does not."""

    additions_only: bool
    verdict: str
    operations: int
    offending: list[SavedFinding]
    allowed: list[SavedFinding]


class SavedNeuroBench(TypedDict):
    """The metrics of NeuroBench."""

    footprint: int
    connection_sparsity: float
    activation_sparsity: float
    dense: float
    effective_macs: float
    effective_acs: float


class SavedModule(TypedDict):
    """A row of the module tree."""

    name: str
    type: str
    output_shape: list[int]
    parameters: int
    depth: int


class SavedExit(TypedDict):
    """Accuracy and cost if samples leave at this confidence."""

    confidence: float | None
    accuracy: float | None
    time_steps: float
    energy_mj: float
    exits: dict[str, float]


class SavedDrivenLayer(TypedDict):
    """A layer of the event-driven network, and how it ran."""

    name: str
    operation: str
    way: str
    density: float
    limit: float | None
    event_ms: float | None
    dense_ms: float | None


class SavedDriven(TypedDict):
    """Times of the event-driven network and of the one that it was made from."""

    milliseconds: float
    merged_milliseconds: float
    batch: int
    threads: int
    precision: str
    layers: list[SavedDrivenLayer]


class Saved(TypedDict):
    """What later versions have added need not be there."""

    format: Literal[1]
    title: str
    model: str
    parameters: int
    checkpoint: str | None
    data: str | None
    samples: int
    input_shape: list[int]
    time_steps: int
    schedule: NotRequired[str | None]
    estimated: bool
    accuracy: float | None
    accuracy_per_step: list[float] | None
    preset: str
    switches: dict[str, str | int | bool]
    constants: SavedConstants
    formula: str
    notes: list[str]
    totals: Totals
    ann: Ann
    presets: list[Preset]
    mean_rate: float | None
    mac_layers: list[str]
    layers: list[SavedLayer]
    neurons: list[SavedNeurons]
    audit: SavedAudit | None
    audit_merged: SavedAudit | None
    merged: NotRequired[SavedMerged | None]
    neurobench: SavedNeuroBench | None
    architecture: list[SavedModule]
    early_exit: NotRequired[list[SavedExit]]
    event_driven: NotRequired[SavedDriven | None]


def read_profile(path: str | os.PathLike) -> dict:
    """The content of a profile.json.

    Raises:
        ValueError: it is none, is damaged, or has another format; what does not fit is named.
    """
    path = Path(path)
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"cannot read {path} as a profile that `spikeformers profile --report` wrote ({error})"
        ) from None
    wrong = wrong_with(content)
    if wrong:
        raise ValueError(
            f"{path} is no profile that `spikeformers profile --report` wrote, or is damaged: {wrong}; profile the model again"
        )
    return content


def wrong_with(content: object) -> str:
    """What keeps this from being the content of a profile.json; "" if it is one."""
    if not isinstance(content, dict):
        return "it holds no keys"
    if found := misfit(content, Saved):
        return f"the profile{found}"
    if (place := _out_of_range(content, "")) is not None:
        return f"{place.removeprefix('.')} is no number that a network can have"
    points = content.get("early_exit") or []
    if any((point["confidence"] is None) != (point is points[-1]) for point in points):
        return "early_exit does not end with the network without early exits"
    shares = [content["accuracy"], *(content["accuracy_per_step"] or []), *(point["accuracy"] for point in points)]
    if any(share is not None and share > 1 for share in shares):
        return "an accuracy is above 1"
    if any(point["exits"].keys() != points[0]["exits"].keys() for point in points):
        return "early_exit has points of different networks"
    driven = content.get("event_driven")
    if driven and not driven["milliseconds"]:
        return "event_driven.milliseconds is 0"
    return ""


def _out_of_range(content, place):
    if isinstance(content, dict):
        found = (_out_of_range(value, f"{place}.{key}") for key, value in content.items())
    elif isinstance(content, list):
        found = (_out_of_range(value, f"{place}[{number}]") for number, value in enumerate(content))
    else:
        wrong = (
            isinstance(content, (int, float))
            and not isinstance(content, bool)
            and content != 0
            and not SMALLEST <= content <= LARGEST
        )
        return place if wrong else None
    return next((place for place in found if place is not None), None)
