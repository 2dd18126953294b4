"""Record a GPU's work once and replay it, so that the processor does not launch each kernel."""

from collections.abc import Callable

import torch
from torch import Tensor

_WARM_UP = 3
"""The number of calls before the recording, in which libraries choose their algorithms."""


class Recorded:
    """A function of tensors that runs on a GPU as a recorded graph.

    Inputs keep their shapes. Everything else that the function reads or writes (weights, gradients, buffers) keeps
    its address, and gradients are None at the start of a call that is not a replay. Each replay draws new random
    numbers.

    Args:
        function: a function that does not wait for the GPU and returns one tensor.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._output: Tensor | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        if self._graph is None and self._calls < _WARM_UP:
            self._calls += 1
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                output = self._function(*inputs)
            torch.cuda.current_stream().wait_stream(stream)
            return output
        if self._graph is None:
            self._inputs = [given.clone() for given in inputs]
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            # other threads pin memory at the same time, which a recording in the mode "global" forbids
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._output = self._function(*self._inputs)
            self._graph = graph
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given, non_blocking=True)
        self._graph.replay()
        assert self._output is not None
        return self._output.clone()
