import json
import os
from pathlib import Path

import pytest
import torch

from codec.weights import WeightsError, read_tensors, write_tensors

TENSORS = {
    "a": torch.randn(3, 4),
    "half": torch.randn(5).half(),
    "counts": torch.tensor([1, 65535], dtype=torch.uint16),
    "none": torch.empty(0, 3),
    "one": torch.tensor(2.5, dtype=torch.float64),
}


def test_tensors_come_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "w.safetensors", TENSORS, {"by": "me"})
    tensors, notes = read_tensors(tmp_path / "w.safetensors")
    assert notes == {"by": "me"}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_the_formats_own_library_agrees(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_tensors(tmp_path / "ours.safetensors", TENSORS)
    theirs = load_file(tmp_path / "ours.safetensors")
    assert all(torch.equal(theirs[name], tensor) for name, tensor in TENSORS.items())
    save_file(TENSORS, tmp_path / "theirs.safetensors")
    ours, _ = read_tensors(tmp_path / "theirs.safetensors")
    assert all(torch.equal(ours[name], tensor) for name, tensor in TENSORS.items())


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_tensors(path, TENSORS)
    whole = path.read_bytes()
    for data in (b"", b"PK\x03\x04 a pickle", whole[:-1], whole[:50], whole.replace(b'"F32"', b'"F99"')):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=r"w\.safetensors"):
            read_tensors(path)
    with pytest.raises(WeightsError, match="no such file"):
        read_tensors(tmp_path / "nothing")


def test_tensors_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """16 MB that become gigabytes."""
    path = tmp_path / "w.safetensors"
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    header = json.dumps({str(i): entry for i in range(1000)}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(WeightsError, match="damaged"):
        read_tensors(path)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "endless").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for name in ("endless", "pipe"):
        with pytest.raises(WeightsError, match="is not a regular file"):
            read_tensors(tmp_path / name)
