"""Quantised weights are bit for bit those of bitsandbytes on the CPU: what is held, and what comes back."""
import os
import subprocess
from pathlib import Path

import bitsandbytes.functional as bnb
import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent.parent
TOOL = Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release")) / "tests" / "parity" / "quantised_tool"
SHAPES = [(64, 64), (128, 4096), (300, 448), (130, 96), (37, 23), (5, 1)]


def ours(weight, folder):
    save_file({"weight": weight}, folder / "in.safetensors")
    # The mean of the scales is LibTorch's: it has one last digit for each number of threads.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([TOOL, folder / "in.safetensors", folder / "out.safetensors"], env=environment,
                          capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "out.safetensors")


def weight_of(shape, kind):
    torch.manual_seed(sum(shape))
    weight = torch.randn(shape) * 0.02
    if kind == "zeros":
        weight[: (shape[0] + 1) // 2] = 0
    if kind == "tiny":
        weight *= 1e-30
    if kind == "outliers":
        weight[0, :] *= 1000
    return weight


@pytest.mark.parametrize("kind", ["normal", "zeros", "tiny", "outliers"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nf4(shape, kind, tmp_path):
    weight = weight_of(shape, kind)
    got = ours(weight, tmp_path)
    packed, state = bnb.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    assert torch.equal(got["nf4.codes"], packed.flatten())
    assert torch.equal(got["nf4.scales"], state.absmax)
    assert torch.equal(got["nf4.spans"], state.state2.absmax)
    assert got["nf4.offset"].item() == state.offset.item()
    # The CPU kernel that brings back takes the scale of the wrong block where a row is no whole number of blocks.
    if shape[1] % 64 == 0:
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            state.dtype = dtype
            assert torch.equal(got[f"nf4.{name}"], bnb.dequantize_4bit(packed, state))
    levels = bnb.get_4bit_type("nf4", device="cpu")
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], 1).flatten()[: weight.numel()]
    scales = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
    back = levels[codes.long()] * scales.repeat_interleave(64)[: weight.numel()]
    assert torch.equal(got["nf4.f32"].flatten(), back)
    assert torch.equal(got["nf4.bf16"].flatten(), back.bfloat16())


@pytest.mark.parametrize("shape", SHAPES)
def test_int8(shape, tmp_path):
    weight = weight_of(shape, "normal")
    got = ours(weight, tmp_path)
    codes, largest, _ = bnb.int8_vectorwise_quant(weight)
    assert torch.equal(got["int8.codes"], codes)
    assert torch.equal(got["int8.largest"], largest)
    back = bnb.int8_vectorwise_dequant(codes, largest)
    assert torch.equal(got["int8.f32"], back)
    assert torch.equal(got["int8.bf16"], back.bfloat16())
