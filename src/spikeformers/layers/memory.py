"""What training keeps for the backward pass: spikes as one byte each instead of a floating-point number."""

import contextlib
import weakref
from typing import Any, cast

import torch
from torch import Tensor

from ..kernels.lif import is_emitted


def compact_spikes() -> contextlib.AbstractContextManager:
    """Inside this context, operations that keep spikes for their backward pass keep booleans, without loss.

    Only tensors that provably are what neurons emitted (`kernels.lif.is_emitted`), unchanged or as views, are replaced: convolutions' and attention's
    inputs. All keepers of one tensor share one boolean copy. Nothing is done without gradients or under torch.compile.

    torch applies the innermost hooks on saved tensors only, so hooks around a model (`save_on_cpu`, say) see little of it, and
    torch.func transforms refuse hooks: set the model's `keep_compact_spikes` to False for both.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(_pack, _unpack)


def _pack(tensor: Tensor):
    spikes = tensor if tensor._base is None else tensor._base
    if spikes.grad_fn is None or not is_emitted(spikes):
        return tensor
    metadata = cast("dict[str, Any]", spikes.grad_fn.metadata)  # a property, which torch annotates as a method
    kept = metadata.get("compact_spikes", lambda: None)()
    if kept is None:
        kept = spikes.detach().to(torch.bool)
        metadata["compact_spikes"] = weakref.ref(kept)
    return kept, tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset()


def _unpack(kept) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    spikes, dtype, shape, stride, offset = kept
    return spikes.to(dtype).as_strided(shape, stride, offset)
