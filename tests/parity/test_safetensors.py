"""Files that ours and the reference library write of the same tensors have the same bytes, and either reads the other's.

hf_copy copies a file through our reader and writer.
"""
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent.parent


def copy_through_ours(source, target):
    build = Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release"))
    program = os.environ.get("HANSA_HF_COPY", build / "sdk" / "hf" / "hf_copy")
    subprocess.run([str(program), str(source), str(target)], check=True)


def some_tensors():
    torch.manual_seed(0)
    return {
        "model.layers.0.weight": torch.randn(7, 5), "model.layers.10.weight": torch.randn(3).to(torch.bfloat16),
        "half": torch.randn(2, 3, 5).to(torch.float16), "scalar": torch.tensor(3.5), "none": torch.empty(0, 4),
        "ids": torch.arange(9), "small": torch.arange(5, dtype=torch.int32), "bytes": torch.arange(3, dtype=torch.uint8),
        "signed": torch.tensor([-1, 2], dtype=torch.int8), "eight": torch.randn(5).to(torch.float8_e4m3fn),
        "ünïcode \"quoted\"\n": torch.randn(2), "z": torch.randn(1000), "A": torch.randn(1),
    }


@pytest.mark.parametrize("names", [None, ["ids"], ["eight", "bytes", "signed"], []])
def test_files_have_the_bytes_of_the_reference(tmp_path, names):
    tensors = {name: tensor for name, tensor in some_tensors().items() if names is None or name in names}
    save_file(tensors, tmp_path / "reference.safetensors", metadata={"format": "pt"})
    copy_through_ours(tmp_path / "reference.safetensors", tmp_path / "ours.safetensors")
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "reference.safetensors").read_bytes()
    loaded = load_file(tmp_path / "ours.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        assert loaded[name].view(torch.uint8).equal(tensor.view(torch.uint8)) if tensor.dim() else loaded[name] == tensor
