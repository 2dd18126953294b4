import os
import subprocess
import sys

import pytest

CHECK = """
import torch
from codec.layers.dynamic_kernel import dynamic_kernel_gathered
from codec.training.triton_kernel import run

torch.manual_seed(0)
for batch, groups, channels, height, width, side, order in [
    (2, 2, 4, 7, 9, 3, torch.channels_last),
    (1, 1, 16, 10, 13, 3, torch.contiguous_format),
    (1, 3, 2, 5, 4, 1, torch.channels_last),
]:
    positions = side**2
    shapes = groups * channels, groups * positions * 2, groups * positions
    given = [2 * torch.randn(batch, count, height, width).contiguous(memory_format=order) for count in shapes]
    ours, theirs = ([part.clone().requires_grad_() for part in given] for _ in range(2))

    def arguments(parts):
        features, offsets, modulation = parts
        return features, offsets.unflatten(1, (groups, positions, 2)), modulation.unflatten(1, (groups, positions))

    out, expected = run(*arguments(ours)), dynamic_kernel_gathered(*arguments(theirs))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    expected.backward(gradient)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)
print("equal")
"""


def test_sums_and_gradients_are_those_of_plain_indexing() -> None:
    """Triton's own interpreter runs the kernels without a GPU; it has to be chosen before they are imported."""
    pytest.importorskip("triton", reason="torch has Triton on Linux alone")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr
