"""Converted networks on disk: weights and thresholds as safetensors, everything else as JSON."""

from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..._files import write_atomically, write_json
from ...models._checkpoint import check_blocks
from ...models._reading import header, read_json
from .converted import Converted
from .sources import NetworkSource


def save_converted(converted: Converted, path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Writes PATH.safetensors, with weights and thresholds, and PATH.json beside it, each whole or not at all, the former last.

    Args:
        converted: of a network that `load_source` made.
        path: of the .safetensors file.
        metadata: for its header.

    Raises:
        ValueError: the path does not end in .safetensors, or the network was not made by `load_source`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"the file must end in .safetensors, not {path.name!r}")
    source = getattr(converted.model, "source", None)
    if source is None:
        raise ValueError(
            "nobody knows how to make this network again; get it from spikeformers.transforms.sta.load_source, or set model.source = "
            "Source(library, name, kwargs) before converting"
        )
    state = {f"model.{key}": value for key, value in converted.model.state_dict().items()}
    for T, thresholds in converted.thresholds.items():
        state |= {f"thresholds.{T}.{place}": threshold for place, threshold in thresholds.items()}
    content = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    config = {
        "converted": source.to_dict(),
        "time_steps": converted.time_steps,
        "levels": converted.levels,
        "potential": converted.potential,
        "spiking": converted.spiking,
        "ranges": converted.ranges,
        "thresholds": "shaped",
        "dtype": str(next(converted.model.parameters()).dtype).removeprefix("torch."),
    }
    write_json(path.with_suffix(".json"), config)
    write_atomically(path, safetensors.torch.save(content, metadata))


def is_converted(path: str | Path) -> bool:
    """Whether a .safetensors file was written by `save_converted`."""
    description = Path(path).with_suffix(".json")
    if not description.is_file():
        return False
    try:
        return "converted" in read_json(description)
    except ValueError:
        return False


def load_converted(path: str | Path) -> Converted:
    """The network that `save_converted` wrote.

    Raises:
        ValueError: it is none, or its library is missing.
    """
    path = Path(path)
    if not path.is_file() or not is_converted(path):
        raise ValueError(f"{path} is no converted network, which is a .safetensors file with its .json beside it")
    config = read_json(path.with_suffix(".json"))
    if config.get("thresholds") != "shaped":
        raise ValueError(
            f"{path} was written by an earlier version, whose thresholds do not say which axis they belong to; convert again"
        )
    lost = [key for key in ("time_steps", "levels", "potential", "spiking", "ranges", "dtype") if key not in config]
    if lost:
        raise ValueError(f"{path.with_suffix('.json')} is damaged: it lacks {', '.join(lost)}")
    shapes, _ = header(path)
    shapes = {name.removeprefix("model."): shape for name, shape in shapes.items() if name.startswith("model.")}
    source, dtype = _described(config, path)
    check_blocks(source.kwargs, len(shapes), f"{path} describes a network that cannot be made")
    planned = _planned(source, path)
    own = {name: list(value.shape) for name, value in planned.state_dict().items()}
    if wrong := [name for name in sorted(shapes.keys() | own.keys()) if shapes.get(name) != own.get(name)]:
        lines = [
            f"{name}: {shapes.get(name, 'missing')} in the file, {own.get(name, 'missing')} in the network"
            for name in wrong[:10]
        ]
        raise ValueError(f"the weights of {path} do not fit the network that it describes: {'; '.join(lines)}")
    model = _made(source, path).to(dtype)
    state, thresholds = {}, {}
    for key, value in safetensors.torch.load_file(path).items():
        kind, _, rest = key.partition(".")
        if kind == "model":
            state[rest] = value
        else:
            T, _, place = rest.partition(".")
            thresholds.setdefault(int(T), {})[place] = value
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"the weights of {path} do not fit the network that it describes: {' '.join(str(error).split())}"
        ) from None
    return Converted(
        model, thresholds, *(config[key] for key in ("time_steps", "levels", "potential", "spiking", "ranges"))
    )


def _described(config: dict, path: Path) -> tuple[NetworkSource, torch.dtype]:
    try:
        source, dtype = NetworkSource(**config["converted"]), getattr(torch, config["dtype"])
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path} describes a network that cannot be made: {error}") from None
    if not isinstance(dtype, torch.dtype) or not isinstance(source.kwargs, dict) or not isinstance(source.name, str):
        raise ValueError(f"{path} describes a network that cannot be made: its type, name or options are none")
    return source, dtype


class _WeightsOnMeta(TorchFunctionMode):
    """Makes tensors that will be filled on the meta device, but not small ranges, from which torchvision's RegNets compute their widths."""

    filled = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in self.filled and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _planned(source: NetworkSource, path: Path) -> nn.Module:
    """The network on the meta device, where it takes no memory whatever the file says."""
    try:
        with torch.device("meta"):
            return _made(source, path)
    except ValueError:
        with _WeightsOnMeta():
            return _made(source, path)


def _made(source: NetworkSource, path: Path) -> nn.Module:
    try:
        return source.create()
    except Exception as error:  # whatever a library raises at words that it does not know
        raise ValueError(f"{path} describes a network that cannot be made: {' '.join(str(error).split())}") from None
