"""The contents of decoders: only the modules that they need."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from codec import get_codec
from submissions.closure import follow_imports
from submissions.decoder import make_decoder
from tests.helpers import THIS_PYTHON

ANY = """__init__ base files formats jxl workers""".split()
CLASSICAL = ["ends", "pillow"]
NETWORK = """bank bank_folders bitstream dkic entropy/__init__ entropy/channel_wise entropy/coder
entropy/exact entropy/factorized
entropy/latent_coder entropy/space_channel entropy/tables families layers/__init__ layers/attention layers/blocks
layers/convolutions layers/dynamic_kernel layers/norm learned network tensors weights""".split()


@pytest.mark.parametrize(
    ("name", "more"), [("jpeg", CLASSICAL), ("hevc", CLASSICAL), ("webp-method2", CLASSICAL), ("po-dkic", NETWORK)]
)
def test_a_decoder_includes_the_modules_that_its_codec_needs(name: str, more: list[str], tmp_path: Path) -> None:
    """Whoever adds a module to a decoder adds it here, knowingly: it changes every frozen decoder."""
    (tmp_path / "decoder.zip").write_bytes(make_decoder([get_codec(name)], [THIS_PYTHON]).data)
    with zipfile.ZipFile(tmp_path / "decoder.zip") as archive:
        modules = {one.removeprefix("modules/") for one in archive.namelist() if one.startswith("modules/")}
    submissions = {f"submissions/{one}.py" for one in ("__init__", "archive", "decoding", "errors")}
    assert modules == {f"codec/{one}.py" for one in [*ANY, *more]} | submissions


def package(folder: Path, name: str, files: dict[str, str]) -> None:
    for file, text in files.items():
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_names_of_a_package_are_imported_on_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency whose ``__init__`` imports what the server lacks, as CompressAI's does."""
    site, out = tmp_path / "site", tmp_path / "out"
    gathered = {
        "__init__.py": (
            "from gathered import clouds, nets\nfrom .helpers import *\nfrom .settings import STEP\n"
            "TWICE = 2 * STEP\n__all__ = ['clouds', 'nets', 'Net']\n"
        ),
        "clouds.py": "import torch_geometric_that_nobody_has\n",
        "helpers.py": "import math\n__all__ = ['Helper']\nclass Helper: value = math.pi\n",
        "settings.py": "STEP = 3\n",
        "unused.py": "raise RuntimeError\n",
        "nets/__init__.py": "from .large import *\nfrom .small import Net\n",
        "nets/small.py": "from gathered import Helper\nclass Net:\n    value = Helper.value\n",
        "nets/large.py": "import torch_geometric_that_nobody_has\nclass Large: ...\n",
    }
    package(site, "gathered", gathered)
    package(site, "mine", {"__init__.py": "import gathered\nmade = gathered.nets.Net(), gathered.TWICE\n"})
    monkeypatch.syspath_prepend(str(site))
    found = follow_imports(["mine"], set(), ["mine"])
    brought = {
        "gathered/__init__.py",
        "gathered/helpers.py",
        "gathered/settings.py",
        "gathered/nets/__init__.py",
        "gathered/nets/small.py",
        "mine/__init__.py",
    }
    assert found.files.keys() == brought
    for name, data in found.files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import mine; print(mine.made[0].value, mine.made[1])"
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    assert done.stdout == "3.141592653589793 6\n", done.stderr


def test_star_imports_bind_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, out = tmp_path / "site", tmp_path / "out"
    starred = {
        "__init__.py": "from .consts import *\nfrom .added import *\nfrom .late import helper\n",
        "consts.py": "import os\nSIZE: int = 3\nA, (B, *C) = 1, (2, 3)\nif os.name:\n    D = 4\n",
        "added.py": "__all__ = ['E']\n__all__ += ['F']\nE, F = 5, 6\n",
        "late.py": "def helper(): return 7\n",
    }
    package(site, "starred", starred)
    fed = {"__init__.py": "X = 1\n\f\nfrom .late import unused\nY = 2\n", "late.py": "raise RuntimeError\n"}
    package(site, "fed", fed)
    made = "made = SIZE, A, B, C, D, E, F, helper(), starred.SIZE, fed.X, fed.Y\n"
    package(site, "user", {"__init__.py": f"import fed, starred\nfrom starred import *\n{made}"})
    monkeypatch.syspath_prepend(str(site))
    found = follow_imports(["user"], set(), ["user"])
    for name, data in found.files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    code = "import sys; sys.path.insert(0, sys.argv[1]); import user; print(*user.made)"
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    assert done.stdout == "3 1 2 [3] 4 5 6 7 3 1 2\n", done.stderr
