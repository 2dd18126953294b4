"""Several processes that train together, started by torch's launcher (``torchrun``)."""

import atexit
import os
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed, nn

from codec.base import CodecError


@dataclass(frozen=True)
class Processes:
    """A process and the number of processes in its run; without a launcher it is alone, at no cost."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def join(cls) -> "Processes":
        """Join the other processes of the launcher; each takes its own GPU, if there are any."""
        local = int(os.environ.get("LOCAL_RANK", 0))
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if not distributed.is_torchelastic_launched():
            return cls(device=device)
        if cuda:
            torch.cuda.set_device(device)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if cuda else "gloo")
            atexit.register(distributed.destroy_process_group)
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    def share(self, size: int) -> slice:
        """The samples of a batch for this process.

        Raises:
            CodecError: the batch can't be shared evenly.
        """
        each, left = divmod(size, self.count)
        if left:
            raise CodecError(f"A batch of {size} can't be shared evenly among {self.count} processes.")
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, values: Tensor) -> Tensor:
        """The values (n, ...) of all processes, concatenated."""
        if self.count == 1:
            return values
        parts = [torch.empty_like(values) for _ in range(self.count)]
        distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)

    def average_gradients(self, module: nn.Module) -> None:
        """Give each process the mean of all processes' gradients; a missing one counts as zero."""
        if self.count == 1:
            return
        parameters = list(module.parameters())
        sizes = [p.numel() for p in parameters]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        distributed.all_reduce(flat)
        means = torch.split(flat.div_(self.count), sizes)
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad = mean.view_as(parameter)

    def any(self, flag: bool) -> bool:
        """Whether any of the processes passes True."""
        if self.count == 1:
            return flag
        return bool(self.gather(torch.tensor([flag], dtype=torch.uint8, device=self.device)).any())
