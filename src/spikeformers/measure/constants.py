"""What an operation and a moved bit cost: the constants that every account of energy takes from here.

Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, at 45 nm and 0.9 V: a 32-bit float is added for 0.9 pJ
and multiplied for 3.7 pJ, so that a multiplication with addition costs 4.6 pJ. Integers of 8 bits are multiplied for 0.2 pJ and of 32 bits
for 3.1 pJ, and added for 0.03 and 0.1 pJ. 64 bits come from a cache of 8 KB for 10 pJ, of 32 KB for 20 pJ, of 1 MB for 100 pJ, and from DRAM
for 1,300 to 2,600 pJ.
"""

from dataclasses import dataclass

FLOAT_MAC, FLOAT_ADD = 4.6, 0.9
"""pJ of a multiplication with addition, and of an addition, of 32-bit floats."""

MEMORIES = {"8KB": 10 / 64, "32KB": 20 / 64, "1MB": 100 / 64, "dram": 1300 / 64}
"""pJ of a bit that is read from, or written to, a memory of this size."""


@dataclass(frozen=True)
class Constants:
    """Energy per operation in pJ: of a multiplication with addition, of an addition, and of one neuron's update at one time
    step, which all published figures leave out. The defaults are those of 32-bit floats at 45 nm."""

    mac: float = FLOAT_MAC
    ac: float = FLOAT_ADD
    neuron: float = 0.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"the energy of {name} is {value} pJ; give 0 or more")

    def energy(self, macs: float, additions: float, updates: float = 0.0) -> float:
        """mJ of so many operations.

        Args:
            macs: multiplications with addition.
            additions: of numbers, with or without a synapse.
            updates: of neurons, one for each of them and each time step.
        """
        return (self.mac * macs + self.ac * additions + self.neuron * updates) * 1e-9


def of_integers(bits: int) -> Constants:
    """Energies for weights and activations of so many bits, summed in 32 bits. A multiplier's grows with the square of the bits, from 0.2 pJ
    at 8."""
    addition = 0.1
    return Constants(round(0.2 * (bits / 8) ** 2 + addition, 6), addition)
