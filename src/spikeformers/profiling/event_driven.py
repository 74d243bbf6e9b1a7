"""What event-driven inference saves on this machine: time beside the merged network, and which layers ran how."""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from ..measure import Batch
from ..transforms.event_driven import EventDriven, EventDrivenConverted, LayerReport


@dataclass
class EventDrivenRun:
    """What `time_event_driven` measured on one batch.

    Attributes:
        milliseconds, merged_milliseconds: median time of a batch, event-driven and of the merged (or converted) network in PyTorch.
        batch: its size.
        threads: how many were used.
        precision: of the event-driven layers' weights.
        layers: which of them ran how, and their densities.
    """

    milliseconds: float
    merged_milliseconds: float
    batch: int
    threads: int
    precision: str
    layers: Sequence[LayerReport]

    def lines(self) -> list[str]:
        """For the terminal."""
        ways = [layer.way for layer in self.layers]
        counts = ", ".join(f"{ways.count(way)} {way}" for way in ("event-driven", "dense") if way in ways)
        lines = [
            f"event-driven {self.milliseconds:.4g} ms for {self.batch} samples, merged {self.merged_milliseconds:.4g} ms "
            f"({self.merged_milliseconds / self.milliseconds:.2f} times as much); {self.precision} weights, "
            f"{self.threads} thread{'s' * (self.threads > 1)}; layers that read spikes: {counts or 'none'}"
        ]
        rows = [["layer", "kernel", "ran", "density", "limit", "event-driven ms", "dense ms"]]
        for layer in self.layers:
            limit = "-" if math.isinf(layer.limit) else f"{layer.limit:.3f}"
            times = [f"{ms:.3f}" for ms in (layer.event_ms, layer.dense_ms)]
            rows.append([layer.name, layer.operation, layer.way, f"{layer.density:.4f}", limit, *times])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [
                cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  " + "  ".join(cells))
        return lines

    def to_dict(self) -> dict:
        """For JSON, which has no infinity: a missing limit is null."""
        numbers = [asdict(layer) for layer in self.layers]
        finite = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in numbers
        ]
        return asdict(self) | {"layers": finite}


def network_behind(model: nn.Module) -> nn.Module:
    """The network to follow: for an event-driven one the merged or converted network that it was made from."""
    return model.merged if isinstance(model, (EventDriven, EventDrivenConverted)) else model


@torch.no_grad()
def time_event_driven(driven: EventDriven | EventDrivenConverted, batch: Batch, rounds: int = 5) -> EventDrivenRun:
    """Runs an event-driven network and the merged or converted one that it was made from on a batch, in turns.

    Args:
        driven: the event-driven network.
        batch: an input, [B, C, H, W] or [T, B, C, H, W], or what else the network takes.
        rounds: how often each runs; the medians count.
    """
    networks = {"event": driven, "merged": driven.merged}
    times = {name: [] for name in networks}
    for turn in range(rounds + 1):
        for name, network in networks.items():
            start = time.perf_counter()
            network(*batch.args, **batch.kwargs)
            if turn:  # the first makes plans and fills caches
                times[name].append(1e3 * (time.perf_counter() - start))
    event, merged = (statistics.median(found) for found in times.values())
    return EventDrivenRun(event, merged, batch.samples, torch.get_num_threads(), driven.precision, driven.layers())
