"""Every operator that was followed, charged for what it does."""

from ..measure.operators import PRODUCTS
from .account import Counts, Layer, row


def exact(counts: Counts, integers: str) -> list[Layer]:
    """A row for each operation: products of spikes are additions, other products, normalisations and functions multiplications."""
    layers = []
    for operation in counts.operations:
        if operation.category not in (*PRODUCTS, "function", "addition", "average"):
            continue
        layer = row(operation, operation.dense / operation.samples)
        layer.synops = 0.0
        layer.ac = layer.additions = (operation.additions + operation.biases) / operation.samples
        if operation.adds(integers):
            caused = counts.synops(operation)
            layer.ac += caused
            layer.synops = 0.0 if operation.category == "scale" else caused  # a factor is no synapse
            spikes = counts.spikes(operation)
            if spikes:  # otherwise a constant mask
                layer.kind, layer.rate = spikes[0].kind, counts.rate(operation, spikes[0])
        else:
            layer.mac = layer.dense
        layers.append(layer)
    return layers
