"""Run a decoder under other conditions, to simulate the differences of another machine."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codec.base import RGBImage

SCRIPT = "perturbed.py"
_THREADS = 3
_NOISE = 8.0
"""The noise in units in the last place, relative to the largest value, as from sums in another order."""


@dataclass(frozen=True)
class Condition:
    """A condition for running a decoder."""

    name: str
    threads: int = 2
    onednn: bool = True
    noise: float = 0.0
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """In the decoder's folder, with :func:`write_script`'s file."""
        return ["python3", SCRIPT, str(self.threads), str(int(self.onednn)), str(self.noise)]


CONDITIONS = (
    Condition("with one thread", threads=1),
    Condition(f"with {_THREADS} threads", threads=_THREADS),
    Condition("without oneDNN", onednn=False),
    Condition("with other vector instructions", variables={"ATEN_CPU_CAPABILITY": "default"}),
    Condition("with another machine's noise", noise=_NOISE),
)


def write_script(folder: Path) -> None:
    """Write a script that decodes under a condition to the folder of a decoder's ``decode``."""
    (folder / SCRIPT).write_text(_SCRIPT, encoding="utf-8")


def difference(one: RGBImage, other: RGBImage) -> tuple[int, float]:
    """The largest difference of samples between images of equal size, and the share of different pixels, 0 to 1."""
    apart = np.abs(one.astype(np.int16) - other)
    return int(apart.max()), float((apart.max(axis=2) > 0).mean())


_SCRIPT = """import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(here / "modules"), str(here / "wheels" / "cp{}{}".format(*sys.version_info))]

import torch

from submissions.archive import unpack

try:
    from codec.formats import write_png
    from submissions.decoding import Brought
except ImportError:  # decoders of format 1
    from codec.image import write_png
    from submissions.decode import Source as Brought

torch.set_num_threads(int(sys.argv[1]))
torch.backends.mkldnn.set_flags(sys.argv[2] == "1")
noise, generator = float(sys.argv[3]), torch.Generator().manual_seed(0)


def disturb(module, inputs, output):
    inner = next(module.children(), None) is not None
    if inner or not torch.is_tensor(output) or not output.is_floating_point() or not output.numel():
        return None
    step = noise * torch.finfo(output.dtype).eps * output.abs().max()
    return output + step * torch.randn(output.shape, generator=generator, dtype=output.dtype)


if noise:
    torch.nn.modules.module.register_module_forward_hook(disturb)
code = 0
streams, source = unpack(Path("bs.zip")), Brought(here)
for member in sorted(streams):
    try:
        codec = source.codec(member)
        write_png(Path("images", member.removesuffix(codec.suffix) + ".png"), codec.decode(streams[member]))
    except Exception as error:
        print(f"{member}: {error}", file=sys.stderr)
        code = 1
sys.exit(code)
"""
