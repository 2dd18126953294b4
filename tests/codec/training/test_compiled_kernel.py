import sys

import pytest
import torch

from codec.training.compiled_kernel import load_library


def test_loading_the_library_leaves_the_process_its_arithmetic() -> None:
    """Linked with ``-ffast-math`` it would make subnormal numbers zero, for all that the process computes."""
    if load_library(16, torch.float32) is None:
        pytest.skip("there is no C compiler")
    smallest_normal = sys.float_info.min
    assert smallest_normal / 2 > 0
