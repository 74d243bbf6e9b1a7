"""How membranes charge: h[t] from x[t] and v[t-1] in plain PyTorch, its derivatives, and what else is known of each way to integrate.

A way that is defined here runs everywhere, on the reference; `equation.h` and `triton.py` hold the same equations for the fast
implementations, which name those that they know.
"""
# Shapes: x, v, h and their gradients [...], element by element; tau [].

from typing import NamedTuple

from torch import Tensor


class Arithmetic(NamedTuple):
    """What one neuron is charged for one time step, the comparison with the threshold and the reset aside."""

    additions: float = 1.0
    multiplications: float = 0.0


class Integration:
    """One way to integrate; what is set here is usual.

    Attributes:
        leaks: whether it has a time constant.
        homogeneous: whether a times the input makes a times the potential.
        arithmetic: of one step. That of leaky neurons is one addition, as is the custom: their constant factor is a shift or part of weights.
    """

    leaks = True
    homogeneous = True
    arithmetic = Arithmetic()

    def charge(self, x: Tensor, v: Tensor, tau: Tensor) -> Tensor:
        """h [...]. The order of operations is part of the definition.

        Args:
            x: input current [...].
            v: potential [...] before this step.
            tau: membrane time constant [].
        """
        raise NotImplementedError

    def back(self, grad: Tensor, x: Tensor, v: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of x and v [...] from that of h.

        Args:
            grad: of h [...].
            x, v, tau: as for `charge`.
        """
        raise NotImplementedError

    def back_to_tau(self, grad: Tensor, x: Tensor, v: Tensor, tau: Tensor) -> Tensor:
        """Gradient of tau [] from that of h.

        Args:
            grad: of h [...].
            x, v, tau: as for `charge`.
        """
        raise NotImplementedError


class Leaky(Integration):
    """h = v + (x - v) / tau"""

    def charge(self, x, v, tau):
        return v + (x - v) / tau

    def back(self, grad, x, v, tau):
        return grad / tau, grad - grad / tau

    def back_to_tau(self, grad, x, v, tau):
        return -((grad * ((x - v) / tau)).sum() / tau)


class LeakyFullInput(Integration):
    """h = (v - v / tau) + x: the leak spares the input."""

    def charge(self, x, v, tau):
        return (v - v / tau) + x

    def back(self, grad, x, v, tau):
        return grad, grad - grad / tau

    def back_to_tau(self, grad, x, v, tau):
        return (grad * (v / tau)).sum() / tau


class Perfect(Integration):
    """h = v + x: no leak."""

    leaks = False

    def charge(self, x, v, tau):
        return v + x

    def back(self, grad, x, v, tau):
        return grad, grad

    def back_to_tau(self, grad, x, v, tau):
        return tau.new_zeros(())


INTEGRATIONS: dict[str, Integration] = {"leaky": Leaky(), "leaky_full_input": LeakyFullInput(), "perfect": Perfect()}
"""By name. In exported programs each is its place in this order, so new ones come last."""
