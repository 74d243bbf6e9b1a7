"""Numbers and names for people."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from markupsafe import Markup, escape


def count(number: float | None) -> str:
    """Three digits and a prefix: 1.24 G, 8.1 M, 512."""
    if number is None:
        return "–"
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(number) >= 0.9995 * 10**power:
            return f"{three_digits(number / 10**power)} {prefix}"
    return three_digits(number)


class Unit(NamedTuple):
    """Of a whole column, so that its numbers compare at a glance: its name, and how much of a number's own unit it is."""

    name: str
    size: float

    def text(self, number: float | None) -> str:
        """Three digits of a number in this unit."""
        if number is None:
            return "–"
        share = number / self.size
        return "< 0.001" if 0 < share < 0.001 else three_digits(share)


ENERGIES = (Unit("mJ", 1), Unit("µJ", 1e-3), Unit("nJ", 1e-6))  # of numbers in mJ
COUNTS = (Unit("T", 1e12), Unit("G", 1e9), Unit("M", 1e6), Unit("k", 1e3), Unit("", 1))


def energy_unit(*columns: Iterable[float | None]) -> Unit:
    """The unit for columns of energies in mJ: the largest that the largest of them reaches."""
    return _unit(ENERGIES, columns)


def count_unit(*columns: Iterable[float | None]) -> Unit:
    """The unit for columns of counts of operations."""
    return _unit(COUNTS, columns)


def _unit(units, columns):
    largest = max((number for column in columns for number in column if number is not None), default=0)
    return next((unit for unit in units if largest >= 0.9995 * unit.size), units[-1])


def run_name(title: str, checkpoint: str | None) -> str:
    """A title with the checkpoint's name instead of its path: digits/1 for runs/digits/1/best.ckpt, my_net for x/my_net.safetensors."""
    if not checkpoint or checkpoint not in title:
        return title
    *folders, file = [part for part in re.split(r"[/\\]", checkpoint) if part not in ("", ".", "..")]
    stem = re.sub(r"\.(ckpt|safetensors|pth?)$", "", file)
    if stem in ("best", "last") and folders:
        run = "/".join(folders[-2:] if folders[-1].isdigit() else folders[-1:])
        stem = run if stem == "best" else f"{run}, last"
    return title.replace(checkpoint, stem)


def energy(number: float | None) -> str:
    """Three digits of an energy in mJ, in the unit that suits it: 0.113 mJ, 45.2 µJ, 810 nJ."""
    if number is None:
        return "–"
    for unit, scale in (("mJ", 1), ("µJ", 1e3), ("nJ", 1e6)):
        if number * scale >= 0.09995:
            return f"{three_digits(number * scale)} {unit}"
    return "0 µJ" if number == 0 else "< 0.1 nJ"


def percent(share: float | None) -> str:
    """Three digits in %: 12.9 %, 0.034 %."""
    if share is None:
        return "–"
    return "< 0.001 %" if 0 < share < 1e-5 else f"{three_digits(100 * share)} %"


def three_digits(number: float) -> str:
    """A number rounded to three digits, without zeros at its end."""
    if number == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def breakable(name: str) -> Markup:
    """A module's name that may wrap behind its dots, the path before the last part in grey; other text as it is."""
    if not name or " " in name:
        return escape(name or "(the model itself)")
    *path, last = name.split(".")
    before = Markup("").join(escape(part) + Markup(".<wbr>") for part in path)
    return Markup('<span class="path">{}</span>{}').format(before, last)


def switches_of(switches: dict) -> str:
    """The settings of a convention of counting."""
    return ", ".join(f"{name} = {value}" for name, value in switches.items()) or "none"


def against_ann(energy_mj: float, ann_mj: float) -> str:
    """How an energy compares with that of the same layers as an ANN."""
    if energy_mj == 0:
        return "no counted operation costs energy"
    ratio = ann_mj / energy_mj
    if 0.995 < ratio < 1.005:
        return "as much as the same layers as an ANN"
    if ratio > 1:
        return f"{three_digits(ratio)} times less than the same layers as an ANN"
    return f"{three_digits(1 / ratio)} times more than the same layers as an ANN"


def letter(index: int) -> str:
    """The name of a report among several: A to Z, A1 and so on."""
    return chr(ord("A") + index % 26) + (str(index // 26) if index >= 26 else "")


def shortened(text: str, longest: int = 34) -> str:
    """With the middle left out: titles that are alike differ at their ends."""
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"
