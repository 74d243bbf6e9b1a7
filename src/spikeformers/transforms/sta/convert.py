"""Training-free conversion of pretrained networks into spiking ones (STA: Jiang et al., ICLR 2024)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ...layers.hooks import copied
from ...measure import Inputs, batches_of, device_of
from .calibration import Sites
from .converted import Converted
from .follow import follow

MODES = ("full", "hybrid")


def convert(
    model: nn.Module,
    calibration: Inputs,
    time_steps: int | Sequence[int] = 32,
    *,
    levels: int = 4,
    potential: float = 0.5,
    spiking: str = "hybrid",
) -> Converted:
    """A spiking network that answers like a pretrained one, without training.

    Everything is converted where it is met while the network runs: layers with weights read spikes of signed integrate-and-fire
    neurons, attention multiplies sums of spikes, other functions become neurons that transmit the function of their input's mean so
    far. The first layer reads the input itself as a constant current, as in the paper.

    Args:
        model: any network whose forward pass is made of torch functions; it is left as it is, its weights are shared. What is
            converted is what it does in eval mode.
        calibration: what thresholds are chosen by, in any form of `measure.batches_of`; labels are not looked at. Of a data configuration
            256 training samples are taken, prepared as in a test, so that the test samples choose nothing. Some hundred samples do; values
            beyond those that they have shown saturate, however long the network runs.
        time_steps: T, or several of which each gets its own thresholds; the largest is how long the network runs, and its thresholds
            are taken unless `time_steps` says otherwise there.
        levels: whole thresholds that a neuron may emit in one step, of either sign: 1 for ternary spikes, more for bursts.
        potential: at the start, in thresholds.
        spiking: "hybrid" evaluates functions (softmax, normalisation, activations) exactly on the means; "full" by networks of
            rectified units alone, and refuses a function that has none.

    Raises:
        ValueError: an option is out of range, there is no calibration data, or an operation cannot be converted: the message names it.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"expected a network (torch.nn.Module), not {type(model).__name__}; put a function into a module's forward"
        )
    wanted = check_options(time_steps, levels, potential, spiking)
    shared = {id(x): x for x in (*model.parameters(), *model.buffers())}
    converted = Converted(copied(model, shared), {}, max(wanted), levels, potential)
    sites = Sites()
    for batch in batches_of(calibration, model, calibration=True):
        batch = batch.to(device_of(model))
        args, kwargs = batch.args, batch.kwargs
        answer = converted.step(converted.start(observer=sites), *args, constant=True, **kwargs)
    sites.settle(_with_other_samples(converted, args, kwargs))
    thresholds = {T: sites.thresholds(T, levels) for T in wanted}
    follow(converted, answer, args, kwargs)
    finished = Converted(copied(model, shared), thresholds, max(wanted), levels, potential, spiking, sites.ranges)
    finished.step(finished.start(), *args, constant=True, **kwargs)  # refuses now what it would refuse later
    return finished


def _with_other_samples(converted: Converted, args: tuple, kwargs: dict) -> dict[str, list[int]]:
    """Where thresholds would have which shape if there were another number of samples.

    A network may have made channels of its samples, say for a grouped convolution with weights of each sample's own.
    """
    count = len(next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)))

    def other(x):
        if not isinstance(x, Tensor) or not x.ndim or len(x) != count:
            return x
        return x[:1] if count > 1 else torch.cat([x, x])

    sites = Sites()
    try:
        converted.step(
            converted.start(observer=sites), *tree_map(other, args), constant=True, **tree_map(other, kwargs)
        )
    except Exception:  # whatever it raises: it is a network for this number of samples
        return {}
    return sites.shapes


def check_options(time_steps: int | Sequence[int], levels: int, potential: float, spiking: str) -> list[int]:
    """The time steps in order, if `convert` takes all of this.

    Args:
        time_steps, levels, potential, spiking: as for `convert`.

    Raises:
        ValueError: it does not.
    """
    wanted = sorted(
        {time_steps} if isinstance(time_steps, int) else set(time_steps) if isinstance(time_steps, Sequence) else ()
    )
    if not wanted or not all(isinstance(T, int) for T in wanted) or wanted[0] < 1:
        raise ValueError(f"time_steps must be a whole number or several, at least 1, not {time_steps!r}")
    if not isinstance(levels, int) or levels < 1 or max(wanted) * levels > 2**15 - 1:
        raise ValueError(
            f"levels must be a whole number from 1 to {(2**15 - 1) // max(wanted)} (for T = {max(wanted)}), not {levels!r}"
        )
    if not 0 <= potential < 1:
        raise ValueError(f"potential must lie in [0, 1), not {potential}")
    if spiking not in MODES:
        raise ValueError(f"spiking must be one of {', '.join(MODES)}, not {spiking!r}")
    return wanted
