"""What NeuroBench (Yik et al., 2023) measures of a network."""

from dataclasses import dataclass

from torch import nn

from ..measure import Recorder
from .account import Counts


@dataclass
class Footprint:
    """What NeuroBench (Yik et al., 2023) measures of a network, with its definitions.

    Attributes:
        footprint: bytes of parameters and buffers.
        connection_sparsity: share of zeros among the weights of convolutions and linear layers.
        activation_sparsity: share of zeros among the outputs of neurons, over all samples and time steps.
        dense, effective_macs, effective_acs: synaptic operations per sample in convolutions and linear layers, biases and zero padding
            aside: all of them; those of two non-zero sides where the input holds other values than spikes; and the same where it holds
            spikes.
    """

    footprint: int
    connection_sparsity: float
    activation_sparsity: float
    dense: float
    effective_macs: float
    effective_acs: float


def footprint(counts: Counts, recorder: Recorder) -> Footprint:
    """The footprint of a network that was followed."""
    model = counts.model
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    stored = [*model.parameters(), *model.buffers()]
    neurons = recorder.neurons.values()
    acs, macs = 0.0, 0.0
    for operation in counts.weighted:
        effective = operation.effective / operation.samples
        acs, macs = (acs + effective, macs) if operation.spike_fed else (acs, macs + effective)
    active, size = sum(sum(operand.active) for operand in neurons), sum(operand.size for operand in neurons)
    return Footprint(
        sum(tensor.numel() * tensor.element_size() for tensor in stored),
        sum(int((weight == 0).sum()) for weight in weights) / max(1, sum(weight.numel() for weight in weights)),
        1 - active / max(1, size),
        sum(operation.unpadded / operation.samples for operation in counts.weighted),
        macs,
        acs,
    )
