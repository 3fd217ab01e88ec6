"""The GPU's lock, asked for kernels of a block and for code of all GPUs that it serves; XLA, for its precision."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import run_config
from tests.machine.device_code import device_code, serves
from vaehpc.machine.served import NEWEST, OLDEST
from vaehpc.training.fit import build_optimizer
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.steps import OneProgram

ROOT = Path(__file__).parents[2]
LISTED = {"argument > AddV2.x", "argument > Pack.values"}
"""The number of a block's first step and the noise key, which lie on the host, for seeds that kernels take from there.

What the call itself copies is not seen here: 4 bytes of each image to the device, and the block's signals from it.
"""


@pytest.fixture(scope="module")
def gpu_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python with the packages of the GPU's lock but, of what only a GPU needs, cuDNN alone: 3.3 of 6.5 GB."""
    folder = tmp_path_factory.mktemp("gpu")
    pinned = re.split(r"^(?=\S)", (ROOT / "containers/locks/train-gpu.txt").read_text(), flags=re.MULTILINE)
    lock = folder / "lock.txt"
    lock.write_text("".join(package for package in pinned if not re.match("nvidia-(?!cudnn)", package)))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", lock], check=True)
    return python


@pytest.mark.long
def test_everything_in_a_block_has_a_kernel_of_the_gpu_and_stays_there(gpu_python: Path) -> None:
    """AE, VAE and spikes in three precisions, with all images on the GPU and without."""
    found = subprocess.run(
        [gpu_python, "-m", "tests.training.placement"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    of_runs = json.loads(found.stdout)
    assert len(of_runs) == 30
    for run, of_run in of_runs.items():
        print(f"{run}: {of_run}")
    assert [run for run, of_run in of_runs.items() if of_run["no_kernel"]] == []
    assert [run for run, of_run in of_runs.items() if of_run["in_loop"]] == []
    assert set().union(*(of_run["crossing"] for of_run in of_runs.values())) == LISTED


@pytest.mark.long
def test_the_lock_has_code_for_every_gpu_that_is_served(gpu_python: Path) -> None:
    """Later versions of cuDNN leave older GPUs out, library by library."""
    (packages,) = gpu_python.parents[1].glob("lib/python3*/site-packages")
    libraries = [*packages.glob("tensorflow/libtensorflow*.so.2"), *packages.glob("nvidia/cudnn/lib/*.so.9")]
    codes = {library.name: code for library in libraries if any((code := device_code(library)).values())}
    served = (70, 75, 80, 86, 89, 90)
    assert (divmod(served[0], 10), divmod(served[-1], 10)) == (OLDEST, NEWEST)
    for name, code in codes.items():
        print(f"{name}: {code}")
    assert [(name, each) for name, code in codes.items() for each in served if not serves(code, each)] == []
    assert len(codes) == 7


@pytest.mark.slow
@pytest.mark.parametrize("switch", [False, True])
def test_float32_is_asked_for_in_full_where_tf32_is_off(switch: bool) -> None:
    """Of each convolution and product of the program, as XLA gets it."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(switch)
    try:
        run = run_config("vae", train={"jit_compile": True})
        images = np.zeros((16, 16, 16, 3), np.uint8)
        net = build_net(run.arm, 16, layer_seeds(run.key("initialisation")))
        block = OneProgram(run, images, net, build_optimizer(run.arm.train, net), True, None)
        rows, epsilon = tf.zeros((2, 16), tf.int32), tf.zeros((2, 16, run.arm.model.z_dim))
        program = block.calls(2, 16, False)[1]
        text = program.experimental_get_compiler_ir(rows, epsilon, tf.constant(1))(stage="hlo")  # type: ignore[attr-defined]
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
    products = re.findall(r"^.* = f32\[.*\]\S* (?:convolution|dot)\(.*$", text, re.MULTILINE)
    in_full = [line for line in products if "operand_precision={highest,highest}" in line]
    assert len(products) > 30
    assert len(in_full) == (0 if switch else len(products))
