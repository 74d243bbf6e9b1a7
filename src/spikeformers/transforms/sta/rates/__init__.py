"""Rate-coded arithmetic for models as they are: a tensor that stands for a sequence of spikes, and what functions make of it.

A `Rate` enters the network instead of the input. Functions that are affine act on it as on any tensor. Layers that multiply by
weights get it as spikes, from a neuron that is put in front of them; a function that is not affine becomes one that transmits the
function of its input's running mean (STA, ICLR 2024; `Run.neuron`). So no class of models has to be known: every function is
converted where the network calls it, and one that cannot be converted is named in an error.

There are two forms, equal to rounding. With "spikes" a Rate holds what travels in one time step, and all that stays behind is
state: sums where something was received, counts where something was sent. With "means" it holds the mean over the steps so far;
layers are affine, so the sums that they received are the layer of the sums that were sent, and only the counts are state.
"""

from .extensions import adapt, adapts, handles
from .products import multiplied
from .rate import RUNNING, Kind, Rate, plain
from .run import Run, any_call

__all__ = ["RUNNING", "Kind", "Rate", "Run", "adapt", "adapts", "any_call", "handles", "multiplied", "plain"]
