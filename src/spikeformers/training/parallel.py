"""What several processes need beyond Lightning: batch statistics over all of them on any device, and FSDP2."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.nn.functional import all_reduce

from ..evaluation.results import at_least_float32


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the samples of all processes, for devices that torch's own SyncBatchNorm does not serve, such as
    CPUs. With it several processes compute what one does on the whole batch."""

    across_processes = True
    """Whether it is a BatchNorm2d outside training, for `save_model`."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]; the processes' batches may differ in size."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        given, x = x.dtype, at_least_float32(x)
        own = x.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)  # float32 counts to 2^24 only
        sums = all_reduce(torch.cat([x.sum((0, 2, 3)).double(), own]))
        count = sums[-1].detach()
        mean = (sums[:-1] / count).to(x.dtype)
        centred = x - mean[:, None, None]
        variance = (all_reduce(centred.square().sum((0, 2, 3)).double()) / count).to(x.dtype)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(given)


def synchronise_norms(model: nn.Module) -> nn.Module:
    """The model with its BatchNorm2d replaced by SyncBatchNorm2d, parameters and statistics kept; changed in place."""
    for name, child in model.named_children():
        if type(child) is nn.BatchNorm2d:
            norm = SyncBatchNorm2d(child.num_features, child.eps, child.momentum)
            norm.to(child.weight.device, child.weight.dtype).load_state_dict(child.state_dict())
            setattr(model, name, norm.train(child.training))
        else:
            synchronise_norms(child)
    return model


def shard(model: nn.Module, stages: Iterable[nn.Module], mesh) -> None:
    """Divides parameters, gradients and optimiser states among the processes of a one-dimensional device mesh (FSDP2), stage by
    stage, so that no process holds more than one whole stage at a time.

    Args:
        model: whose parameters are divided, in place.
        stages: its modules that are gathered one at a time.
        mesh: of devices.
    """
    model.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other
    for stage in stages:
        fully_shard(stage, mesh=mesh)
    fully_shard(model, mesh=mesh)


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Gives all processes the first one's buffers, such as running batch statistics."""
    by_type = {}
    for buffer in model.buffers():
        by_type.setdefault(buffer.dtype, []).append(buffer)
    for buffers in by_type.values():
        joined = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(joined, 0)
        for buffer, part in zip(buffers, joined.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))
