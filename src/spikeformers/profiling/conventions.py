"""The conventions of two papers: what they count, and at which rates."""
# Symbols: T time steps, N = H*W tokens, D channels, h heads, r firing rates of inputs.

import math

from ..layers import Part, SpikingSelfAttention
from ..measure.operation import Operation
from ..models.meta_spikeformer import SepConv
from .account import Counts, Layer, row


def _charge(counts: Counts, operation: Operation, layer: Layer, integers: str = "mac") -> Layer:
    """AC = dense * r for spikes, MAC = dense for the rest."""
    if layer.kind in ("binary", "ternary") or (layer.kind == "integer" and integers == "levels"):
        layer.rate = counts.rate(operation, operation.data[0])
        layer.ac = layer.dense * layer.rate
    else:
        layer.mac = layer.dense
    return layer


def spikingformer(counts: Counts) -> list[Layer]:
    """Layers as the published counting of Spikingformer charges them: see docs/energy.md."""
    layers = []
    for place, operation in enumerate(counts.weighted):
        dense = (operation.dense + operation.biases) / operation.samples
        repeats = counts.time_steps / operation.steps if place == 0 else 1
        steps = counts.time_steps if place == 0 else operation.steps
        layers.append(_charge(counts, operation, row(operation, dense * repeats, steps)))
    return layers + _attention(counts, "per_head")


def meta_spikeformer(
    counts: Counts, repconv: str, sepconv: str, first_conv_steps: int | str, attention: str, strict: bool, integers: str
) -> list[Layer]:
    """Layers as the published counting of Spike-driven Transformer V2 charges them: see docs/energy.md.

    Args:
        counts: what was followed.
        repconv, sepconv: whether those chains count "merged", as one convolution, or one by one.
        first_conv_steps: how often the first convolution is charged for a static image: 1, or "T" for every time step.
        attention: "per_head" or "full", the channels that a product of attention sums over.
        strict: whether the later convolutions of a chain cost multiplications, as they read real numbers; if not, additions at the rate
            of the spikes that the chain reads.
        integers: what becomes of products of whole numbers, see `Operation.charged`.
    """
    layers, seen, wholes = [], {}, {}
    chains = {name: module for name, module in counts.within(Part).items() if module.chain}
    convention = {True: sepconv, False: repconv}
    merged = {name: module for name, module in chains.items() if convention[isinstance(module, SepConv)] == "merged"}
    for place, operation in enumerate(counts.weighted):
        dense = operation.dense / operation.samples
        layer = row(operation, dense)
        parent = next((name for name in chains if f"{operation.module}.".startswith(f"{name}.")), None)
        if place == 0 and layer.kind in ("real", "integer"):  # of a sequence it reads every frame anyway
            repeats = counts.time_steps // operation.steps if first_conv_steps == "T" else 1
            layer.mac = layer.dense = dense * repeats
            layer.steps = operation.steps * repeats
        elif parent in merged and (whole := _merged(merged[parent], parent, operation, layer)) is not None:
            if whole.dense:
                whole.trained = dense
                wholes[parent] = _charge(counts, operation, whole, integers)
                layers.append(whole)
            else:
                wholes[parent].trained += dense
            continue
        elif layer.kind == "real" and parent in seen and not strict:
            layer.rate, layer.ac = seen[parent], dense * seen[parent]
        else:
            _charge(counts, operation, layer, integers)
            if not layer.mac and parent:
                seen[parent] = layer.rate
        layers.append(layer)
    return layers + _attention(counts, attention)


def _merged(module: Part, name: str, operation: Operation, layer: Layer) -> Layer | None:
    """The row of an operation inside a chain of convolutions that re-parameterisation makes one of: the first operation is charged for
    all of it, the others have none. None for operations that are not part of it."""
    part = operation.module[len(name) + 1 :]
    depthwise = module.depthwise
    channels = module.get_submodule(module.chain[-1]).out_channels
    if part not in (*module.chain, ""):  # some compute their convolutions themselves
        return None
    if part != module.chain[0]:
        return Layer(name, "", 0.0)
    height, width = depthwise.kernel_size
    layer.name, layer.type = name, f"convolution {height}x{width}, merged"
    layer.shape = (channels, *layer.shape[1:])
    layer.dense = float(height * width * depthwise.in_channels * math.prod(layer.shape) * layer.steps)
    return layer


def _attention(counts: Counts, convention: str) -> list[Layer]:
    """The rows of attention between spikes, by formula."""
    layers = []
    for name, module in counts.within(SpikingSelfAttention).items():
        places = [operation for operation in counts.operations if operation.module == f"{name}.q_lif"]
        if not places:
            continue
        channels, height, width = counts.neuron_shapes[f"{name}.q_lif"]
        tokens, steps = height * width, places[0].steps
        if module.operator <= 2:
            inside = [o for o in counts.operations if o.module == name and o.category in ("product", "matmul")]
            dense = float(steps * tokens * channels)
            rate = counts.synops(inside[0]) / dense if module.operator == 1 else _neuron_rate(counts, f"{name}.q_lif")
            charged = dense * rate
        else:
            q, k, v = (_neuron_rate(counts, f"{name}.{z}_lif") for z in "qkv")
            per_head = channels // module.num_heads if convention == "per_head" else channels
            base = float(steps * tokens * channels * per_head)
            rate = min(k, v) + q if convention == "per_head" else q + k + v
            dense, charged = 2 * base, base * rate
            rate /= 2 if convention == "per_head" else 3
        layers.append(
            Layer(
                name,
                f"SDSA-{module.operator}",
                dense,
                "binary",
                rate,
                [],
                charged,
                0.0,
                steps,
                (channels, height, width),
            )
        )
    return layers


def _neuron_rate(counts: Counts, name: str) -> float:
    if counts.neuron_rates.get(name) is None:
        raise ValueError(
            f"the firing rate of {name} is missing; the attention term of this preset needs q_lif, k_lif and v_lif"
        )
    return counts.neuron_rates[name]
