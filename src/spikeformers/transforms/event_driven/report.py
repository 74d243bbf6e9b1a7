"""What an event-driven network tells of its layers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerReport:
    """A layer that reads spikes, as `EventDriven.layers` shows it.

    Attributes:
        name: of the module; of the last where several convolutions became one.
        operation: its kernel, such as "3x3", "depthwise 7x7" or "linear".
        way: "event-driven" or "dense", in the last run.
        density: spikes per neuron and time step in its input, in the last run.
        limit: the density up to which it runs event-driven.
        event_ms, dense_ms: milliseconds at calibration, at its density then.
    """

    name: str
    operation: str
    way: str
    density: float
    limit: float
    event_ms: float
    dense_ms: float


def report(layer, density: float) -> LayerReport:
    """The report of a layer of either kind of network; without a calibration it has no limit and no times."""
    _, event, dense = layer.milliseconds or (float("nan"),) * 3
    limit = float("inf") if layer.limit is None else layer.limit
    return LayerReport(layer.name, layer.operation, layer.way, density, limit, event, dense)
