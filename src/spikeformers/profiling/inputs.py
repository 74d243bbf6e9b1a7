"""What networks are followed on."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from ..transforms.event_driven import EventDriven, EventDrivenConverted


def network_behind(model: nn.Module) -> nn.Module:
    """The network that is followed: an event-driven one is by that which it was made of."""
    return model.merged if isinstance(model, (EventDriven, EventDrivenConverted)) else model


def batches_of(data: Tensor | Iterable, model: nn.Module) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Pairs of inputs and labels (None without), from one batch x, one pair (x, labels), or batches of either kind; for networks that
    take images of any size also from single images [C, H, W].

    Raises:
        ValueError: there is something else in it.
    """
    pair = isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
    if isinstance(data, Tensor) or (
        pair and data[1].ndim == 1 and not data[1].is_floating_point() and data[0].ndim > 1
    ):
        data = [data]
    if data is None or isinstance(data, (str, dict)):
        raise ValueError(
            f"expected a batch or batches of inputs, not {type(data).__name__}; give a tensor, or a DataLoader"
        )
    for batch in data:
        x, labels = (*batch, None)[:2] if isinstance(batch, (tuple, list)) and batch else (batch, None)
        if not isinstance(x, Tensor) or x.ndim < 2:
            raise ValueError(
                f"expected batches of tensors [B, ...] or of pairs (tensor, labels), not {type(x).__name__}"
            )
        yield x[None] if x.ndim == 3 and hasattr(model, "outside") else x, labels
