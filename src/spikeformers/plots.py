"""Pictures of spikes, membranes, confusions and learning, drawn by matplotlib (`pip install matplotlib`) into axes of one's own or new ones."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._files import read_text, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .measure import Accuracy

MOST_NEURONS = 500
"""That a raster shows; more are thinned out evenly."""


def raster(
    spikes: Tensor | Mapping[str, Tensor], ax: "Axes | None" = None, *, sample: int = 0, most: int = MOST_NEURONS
) -> "Axes":
    """A dot for every spike: time steps to the right, neurons upwards.

    Args:
        spikes: of a layer [T, B, ...], or of several by name, which are drawn in colours above each other, the first at the bottom.
        ax: where; new axes by default.
        sample: which of the batch.
        most: neurons of a layer that are shown, evenly chosen from all.

    Raises:
        ValueError: a layer's spikes have no batch, or not so many samples.
    """
    ax = _axes(ax)
    layers = spikes if isinstance(spikes, Mapping) else {"": spikes}
    bottom, middles, longest = 0, [], 1
    for name, values in layers.items():
        own = _of_sample(values, sample, name)
        if own.shape[1] > most:
            own = own[:, torch.linspace(0, own.shape[1] - 1, most).round().long()]
        steps, neurons = own.nonzero(as_tuple=True)
        ax.scatter((steps + 1).tolist(), (neurons + bottom).tolist(), s=6, marker="|", linewidths=1.2, label=name)
        middles.append(bottom + own.shape[1] / 2)
        bottom, longest = bottom + own.shape[1], max(longest, len(own))
        ax.axhline(bottom - 0.5, color="0.85", linewidth=0.5, zorder=0)
    _time_axis(ax, longest)
    ax.set_ylim(-0.5, max(bottom, 1) - 0.5)
    if any(layers):
        ax.set_yticks(middles, list(layers))
    else:
        ax.set_ylabel("neuron")
    return ax


def membrane(
    potentials: Tensor,
    ax: "Axes | None" = None,
    *,
    spikes: Tensor | None = None,
    v_threshold: float | None = None,
    sample: int = 0,
    neurons: Sequence[int] = (0, 1, 2),
) -> "Axes":
    """Potentials of a few neurons over time, a triangle where one fires.

    Args:
        potentials: of a layer [T, B, ...], after each step.
        ax: where; new axes by default.
        spikes: the same neurons' [T, B, ...].
        v_threshold: is drawn as a dashed line.
        sample: which of the batch.
        neurons: which, counted over the flattened layer.

    Raises:
        ValueError: there is no such sample or neuron.
    """
    ax = _axes(ax)
    own = _of_sample(potentials, sample, "")
    if not neurons or not all(0 <= neuron < own.shape[1] for neuron in neurons):
        raise ValueError(f"neurons must be from 0 to {own.shape[1] - 1}, not {list(neurons)}")
    fired = None if spikes is None else _of_sample(spikes, sample, "")
    times = list(range(1, len(own) + 1))
    for neuron in neurons:
        (line,) = ax.plot(times, own[:, neuron].tolist(), marker=".", label=f"neuron {neuron}")
        if fired is not None:
            at = fired[:, neuron].nonzero().flatten()
            height = [own[:, list(neurons)].max().item() if v_threshold is None else v_threshold] * len(at)
            ax.scatter((at + 1).tolist(), height, marker="^", color=line.get_color(), zorder=3)
    if v_threshold is not None:
        ax.axhline(v_threshold, color="0.5", linestyle="--", linewidth=1)
    _time_axis(ax, len(own))
    ax.set_ylabel("membrane potential")
    ax.legend()
    return ax


def confusion_matrix(answers: "Accuracy", classes: Sequence[str] | None = None, ax: "Axes | None" = None) -> "Axes":
    """Which classes (rows) got which answers (columns), as shares of each class; numbers are written into up to 20 classes.

    Args:
        answers: what was counted, such as `profile(...).answers` or `evaluate(...).answers`.
        classes: their names; numbers by default.
        ax: where; new axes by default.

    Raises:
        ValueError: nothing was counted, or names do not fit.
    """
    if not answers.labelled:
        raise ValueError("there are no labelled answers to draw a confusion matrix of")
    shares = answers.confusion_shares
    names = [str(k) for k in range(len(shares))] if classes is None else list(classes)
    if len(names) != len(shares):
        raise ValueError(f"{len(names)} names do not fit {len(shares)} classes")
    few = len(shares) <= 20
    size = max(4.8, 0.5 * len(shares) + 2) if few else 8
    ax = _axes(ax, (size, size))
    drawn = ax.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    if few:
        ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
        ax.set_yticks(range(len(names)), names)
        for row, column in shares.nonzero().tolist():
            share = shares[row, column].item()
            text = f"{share:.0%}" if share >= 0.005 else "<1%"
            ax.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if share > 0.5 else "black")
    ax.figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.03, label="share of the class")
    ax.set_xlabel("answer")
    ax.set_ylabel("class")
    return ax


def learning_curves(rows: Sequence[Mapping[str, float]] | str | Path, figure: "Figure | None" = None) -> "Figure":
    """What changed from epoch to epoch: one small plot for every kind of number, training and test in one.

    Args:
        rows: of a run's metrics.csv, or the path of it.
        figure: an empty one to draw into; a new one by default.

    Raises:
        ValueError: there are none, or the file cannot be read.
    """
    if isinstance(rows, str | Path):
        rows = [
            {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(read_text(rows).splitlines())
        ]
    if not rows:
        raise ValueError("there are no epochs to draw")
    kinds: dict[str, list[str]] = {}
    for name in rows[0]:
        if name != "epoch":
            kinds.setdefault(name.removeprefix("train_").removeprefix("val_").removeprefix("test_"), []).append(name)
    across = min(3, len(kinds))
    down = math.ceil(len(kinds) / across)
    if figure is None:
        from matplotlib import pyplot

        figure = pyplot.figure(layout="constrained")
    figure.set_size_inches(4 * across, 2.8 * down)
    plots = figure.subplots(down, across, squeeze=False).flatten()
    for ax, (kind, names) in zip(plots, kinds.items(), strict=False):
        for name in names:
            ax.plot(
                [row["epoch"] for row in rows],
                [row.get(name, math.nan) for row in rows],
                label=name,
                marker="." if len(rows) < 30 else "",
            )
        ax.set_title(kind.replace("_", " "), fontsize=10)
        _whole_numbers(ax, "epoch")
        ax.grid(alpha=0.3)
        if len(names) > 1:
            ax.legend(fontsize=8)
    for ax in plots[len(kinds) :]:
        ax.axis("off")
    return figure


def save(drawn: "Axes | Figure", path: str | Path) -> None:
    """Writes a PNG (or what else matplotlib knows by the file's suffix), whole or not at all.

    Args:
        drawn: what a function of this module returned.
        path: of the file.
    """
    figure = getattr(drawn, "figure", drawn)
    content = io.BytesIO()
    figure.savefig(content, format=Path(path).suffix[1:] or "png", dpi=130, bbox_inches="tight")
    write_atomically(Path(path), content.getvalue())


def blank_figure(size: tuple[float, float] | None = None) -> "Figure":
    """A figure that is in no list of pyplot's, and so is forgotten once nobody holds it.

    Args:
        size: in inches; matplotlib's usual one by default.
    """
    from matplotlib.figure import Figure

    return Figure(size, layout="constrained")


def _axes(ax, size=None):
    """The given axes, or those of a new figure of pyplot, which `plt.show()` and notebooks show."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=size, layout="constrained")[1]


def _of_sample(values: Tensor, sample: int, name: str) -> Tensor:
    """[T, B, ...] -> one sample's [T, N]"""
    if values.ndim < 2 or not 0 <= sample < values.shape[1]:
        raise ValueError(
            f"{name or 'the layer'} holds [{', '.join(map(str, values.shape))}], of which there is no [T, sample {sample}, ...]"
        )
    return (
        values[:, sample].detach().cpu().float().flatten(1)
        if values.ndim > 2
        else values[:, sample, None].detach().cpu().float()
    )


def _time_axis(ax, steps):
    ax.set_xlim(0.5, steps + 0.5)
    _whole_numbers(ax, "time step")


def _whole_numbers(ax, name):
    """Marks on the horizontal axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(name)
