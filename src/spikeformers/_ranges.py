"""Ranges of numbers, for options of dataclasses (`_options`) and annotations of arguments (`_arguments`)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """What a number may be, or each of several numbers: `least` to `most`, themselves included, or `above` to `below`, themselves not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        return (
            (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def instead_of(self, number: float) -> str:
        """What to give instead of a number that is not in it: the whole range if it is short, otherwise the end that was passed."""
        if None not in (self.least, self.most) and self.most <= 1000:
            return f"{self.least:g} to {self.most:g}"
        ends = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        ends = {word: end for word, end in ends.items() if end is not None}
        if self.most is None or self.most > 1000:
            passed = ("at most", "below") if number > next(iter(ends.values())) else ("at least", "above")
            ends = {word: end for word, end in ends.items() if word in passed}
        text = " and ".join(f"{word} {end:,.12g}" for word, end in ends.items())
        return f"a number {text}" if next(iter(ends)) == "above" else text

    def broken(self, value: float) -> str | None:
        """The bound that the value does not keep, in words."""
        if self.least is not None and value < self.least:
            return f"at least {self.least:,}"
        if self.most is not None and value > self.most:
            return f"at most {self.most:,}"
        if self.above is not None and value <= self.above:
            return "positive" if self.above == 0 else f"above {self.above:,}"
        if self.below is not None and value >= self.below:
            return f"below {self.below:,}"
        return None
