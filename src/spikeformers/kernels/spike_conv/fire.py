"""The neurons behind an operation."""

from dataclasses import dataclass

from . import reference


@dataclass(frozen=True)
class Fire:
    """The neurons behind an operation: the constants of `kernels.lif.lif`, tau None for neurons without leak."""

    tau: float | None = 2.0
    v_threshold: float = 1.0
    decay_input: bool = True
    reset: str = "hard"

    def __post_init__(self):
        if self.tau is not None and not self.tau >= 1:
            raise ValueError(f"tau must be at least 1 time step, or None for neurons without leak, not {self.tau}")
        if not self.v_threshold > 0:
            raise ValueError(f"v_threshold must be positive, not {self.v_threshold}")
        if self.reset not in ("hard", "soft"):
            raise ValueError(f"reset must be 'hard' or 'soft', not {self.reset!r}")

    def dynamics(self) -> reference.Dynamics:
        """The constants as `kernels.lif.reference` takes them; a surrogate is not needed here."""
        integration = 2 if self.tau is None else 0 if self.decay_input else 1
        return reference.Dynamics(integration, self.v_threshold, self.reset == "soft", 0, 1.0)
