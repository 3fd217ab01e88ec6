"""What a process of `vaehpc doctor --gpu` finds out on its device, in numbers; `vaehpc.checks.proof` judges them.

Each function is called in a process of its own, because TensorFlow chooses its device, determinism and TF32 only once.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from vaehpc.schema.config import RunConfig, TrainConfig
from vaehpc.schema.data import Request
from vaehpc.study.attempts import Attempt
from vaehpc.study.files import RunDir, StudyDir
from vaehpc.study.states import Progress, state_hash
from vaehpc.tasks import train
from vaehpc.tasks.device import configure_tensorflow, kept_programs
from vaehpc.tasks.prepare import prepare
from vaehpc.training.checkpoint import save_checkpoint, state_arrays
from vaehpc.training.device import memory_of_gpu
from vaehpc.training.encode import compiled_encoder
from vaehpc.training.fit import build_optimizer
from vaehpc.training.latents import measuring
from vaehpc.training.models import LogitsLayer, Net, build_net, layer_seeds
from vaehpc.training.pipeline import Images, UInt8, device_memory, epoch_order, load_training_images, resident_images
from vaehpc.training.placement import placement
from vaehpc.training.signals import LOSSES
from vaehpc.training.steps import Float32, OneProgram, training_block

Numbers = dict[str, Any]
"""As they go into JSON."""

HALF = "state.npz"
"""The state after the first half of the steps, in the folder of a training's programs."""
LENGTHS = (1, 7)
"""Of blocks whose bits are compared with those of the longest."""
TOLERANCES = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 4e-3}
"""Of an operation, relative to the largest value of its result on the CPU, which computes it in float32."""
KERNEL, XLA = "kernel", "XLA"
"""How an operation is computed."""
PIECE = 2**30
"""Bytes that are taken at once until there is no more memory."""
MORE_THAN_ANY = 2**50
"""Bytes that no processor has; to fill its memory would hurt others."""


class Repeated:
    """So many images, the given ones again and again."""

    def __init__(self, images: Images, count: int) -> None:
        self._images, self._count = images, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, indices: npt.NDArray[np.int64] | slice) -> UInt8:
        wanted = np.arange(self._count)[indices] if isinstance(indices, slice) else indices
        return self._images[wanted % len(self._images)]


class Training:
    """A run that is trained from its first weights as often as is asked."""

    def __init__(self, run: RunConfig, resident: bool, deterministic: bool = True) -> None:
        self.device = configure_tensorflow(run.arm.train, deterministic)
        self.run = run
        self.images = Repeated(load_training_images(run), run.data.num_train)
        self.net = build_net(run.arm, run.data.image_size, layer_seeds(run.key("initialisation")))
        self.optimizer = build_optimizer(run.arm.train, self.net)
        self.variables = [*self.net.variables, *self.optimizer.variables]
        # A processor's memory is the images' own.
        memory = memory_of_gpu() or 4 * len(self.images) * self.images[:1].nbytes
        self.resident = resident_images(self.images, memory) if resident else None
        self.block = training_block(run, self.images, self.net, self.optimizer, resident=self.resident)
        self.num_steps = run.data.num_train // run.arm.train.batch_size
        self.first = self.state()

    def state(self) -> list[npt.NDArray[np.generic]]:
        """Copies of all variables."""
        return [np.copy(np.asarray(variable)) for variable in self.variables]

    def assign(self, state: Sequence[npt.NDArray[np.generic]]) -> None:
        """Go back to this state."""
        for variable, value in zip(self.variables, state, strict=True):
            variable.assign(value)

    def steps(self, start: int, end: int, length: int | None = None) -> Float32:
        """Signals (steps, signals) of these steps, trained in blocks of this length, or of the longest."""
        train, at_most = self.run.arm.train, length or self.run.plan.probe.every_steps
        self.block.feed(epoch_order(self.run, 0)[start * train.batch_size :])
        return np.concatenate([self.block(step, min(at_most, end - step)) for step in range(start, end, at_most)])

    def hashed(self) -> str:
        """Of the state."""
        return state_hash(state_arrays(self.variables), self.num_steps)


def drawn(folder: str, count: int, size: int) -> Numbers:
    """A data set of built-in faces, nine in ten to train on."""
    prepare(Request(synthetic=count, size=size, num_train=count * 9 // 10, images_per_shard=128), Path(folder))
    return {}


def libraries() -> Numbers:
    """NVIDIA's libraries that TensorFlow has loaded, and what XLA compiles with: name -> path."""
    configure_tensorflow(TrainConfig())
    a, b = (tf.ones((1, side, side, 4)) for side in (8, 3))
    tf.nn.conv2d(a, tf.transpose(b, (1, 2, 3, 0)), 1, "SAME").numpy()  # so that cuDNN is loaded
    return {"loaded": nvidia_libraries(Path("/proc/self/maps").read_text()), "compiles_with": compilers()}


def nvidia_libraries(maps: str) -> dict[str, str]:
    """CUDA's libraries among the files that a process has mapped: 'libcudnn.so.9' -> folder."""
    found = re.findall(r"(/\S*)/(lib(?:cuda|cudart|cudnn|cublas|cublasLt|cufft|cusolver|nccl|nvJitLink)\.so\S*)", maps)
    return {name: folder for folder, name in sorted(set(found))}


def compilers() -> dict[str, str | None]:
    """'ptxas' and 'libdevice' where TensorFlow's wheel, CUDA's own place or the path has them."""
    package = importlib.util.find_spec("nvidia")
    places = [Path(path) / "cuda_nvcc" for path in ((package and package.submodule_search_locations) or ())] + [
        Path("/usr/local/cuda")
    ]

    def first(name: str) -> str | None:
        return next((str(path) for place in places if (path := place / name).exists()), None)

    return {"ptxas": first("bin/ptxas") or shutil.which("ptxas"), "libdevice": first("nvvm/libdevice/libdevice.10.bc")}


def kernels() -> Numbers:
    """One operation of each kind that a training has, in each type, as a kernel and by XLA, against the CPU's.

    The CPU computes in float32 from what the type has made of the arguments.
    """
    device = configure_tensorflow(TrainConfig(precision="float32"))
    tf.config.set_soft_device_placement(False)  # which would take another device's kernel
    there = f"/{device.kind.upper()}:0"
    wrong, number = list[str](), 0
    for name, work, arguments, ways in _operations():
        with tf.device("/CPU:0"):
            wanted = work(*(_in_float32(argument) for argument in arguments))
        for way in ways:
            number += 1
            try:
                with tf.device(there):
                    call = tf.function(work, jit_compile=way == XLA, autograph=False)
                    found = call(*(tf.identity(argument) for argument in arguments))
            except tf.errors.OpError as error:
                wrong.append(f"{name} by {way}: {str(error).splitlines()[0]}")
                continue
            expected, values = np.asarray(wanted, np.float64), np.asarray(tf.cast(found, tf.float64))
            tolerance = TOLERANCES.get(arguments[0].dtype.name, TOLERANCES["float32"])
            if not np.abs(values - expected).max() <= tolerance * np.abs(expected).max():
                wrong.append(f"{name} by {way}: another result than the CPU's")
    return {"operations": number, "wrong": wrong, "gpus": len(tf.config.list_physical_devices("GPU"))}


def _in_float32(argument: tf.Tensor) -> tf.Tensor:
    return tf.cast(argument, tf.float32) if argument.dtype.is_floating else argument


def _operations() -> Iterator[tuple[str, Callable[..., tf.Tensor], list[tf.Tensor], tuple[str, ...]]]:
    """Name, what is computed, of which arguments, and in which ways."""
    both = (KERNEL, XLA)
    rng = np.random.default_rng(0)
    with tf.device("/CPU:0"):
        numbers = tf.constant(rng.normal(size=(2, 8, 8, 4)), tf.float32)
        kernel = tf.constant(rng.normal(size=(3, 3, 4, 4)), tf.float32)
        pixels, rows = tf.constant(rng.integers(256, size=(5, 4, 4, 3)), tf.uint8), tf.constant([4, 0, 4])
        counters, key = tf.range(8, dtype=tf.int64), tf.constant([3, 1], tf.int64)
        typed = {name: (tf.cast(numbers, name), tf.cast(kernel, name)) for name in TOLERANCES}
    for name, (x, w) in typed.items():
        yield f"Cast, Mul, AddV2 in {name}", lambda x: tf.cast(x * x + x, tf.float32), [x], both
        yield f"Exp in {name}", lambda x: tf.exp(0.1 * x), [x], both
        yield f"MatMul in {name}", lambda x: tf.matmul(x, x, transpose_b=True), [x], both
        yield f"Conv2D in {name}", lambda x, w: tf.nn.conv2d(x, w, 2, "SAME"), [x, w], both
        yield f"its gradients in {name}", _gradients, [x, w], both
        yield f"BatchNormalization in {name}", _normalised, [x], both
    yield "Sum, Max in float32", lambda x: tf.reduce_sum(x, 1) + tf.reduce_max(x, 1), [numbers], both
    yield "ArgMax in float32", lambda x: tf.argmax(tf.reshape(x, (2, -1)), 1), [numbers], both
    yield "Less in int64", lambda n: tf.cast(n < 4, tf.float32), [counters], both
    # TensorFlow has no kernel of it for a GPU.
    yield "gather of uint8", lambda pixels, rows: tf.cast(tf.gather(pixels, rows), tf.float32), [pixels, rows], (XLA,)
    # XLA makes other numbers of the same key; a training draws outside of it, of a key on the host.
    yield "Philox", lambda _: tf.random.stateless_normal((64,), (3, 1)), [key], (KERNEL,)


def _gradients(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        loss = tf.reduce_sum(tf.cast(tf.square(tf.nn.conv2d(x, w, 2, "SAME")), tf.float32))
    of_x, of_w = tape.gradient(loss, [x, w])
    return tf.concat([tf.reshape(gradient, (-1,)) for gradient in (of_x, of_w)], 0)


def _normalised(x: tf.Tensor) -> tf.Tensor:
    ones = tf.ones(4)
    return tf.compat.v1.nn.fused_batch_norm(x, ones, ones, epsilon=1e-3, is_training=True)[0]


def placed(run: RunConfig, resident: bool) -> Numbers:
    """Where a block of the run computes, and what each of its steps copies between host and device, in bytes."""
    training = Training(run, resident)
    batch_size, max_steps = run.arm.train.batch_size, run.plan.probe.every_steps
    assert isinstance(training.block, OneProgram)
    memory = training.resident if training.resident is not None else device_memory(training.images, 1)
    shapes = [(max_steps, batch_size, False), (1, max(1, batch_size // 2), False)]  # as an epoch's last batch
    found = placement(training.block, shapes, memory, training.device.kind)
    pixels = 0 if training.resident is not None else training.images[:batch_size].nbytes
    width = (
        training.block.calls(*shapes[0])[1]
        .get_concrete_function(  # type: ignore[attr-defined]
            tf.TensorSpec((max_steps, batch_size), tf.int32),
            tf.TensorSpec((max_steps, batch_size, run.arm.model.z_dim), tf.float32),
            tf.TensorSpec((), tf.int32),
        )
        .output_shapes[1]
    )
    return {
        "operations": found.num_operations,
        "no_kernel": sorted(found.no_kernel),
        "in_loop": sorted(found.in_loop),
        "crossing": sorted(found.crossing),
        "bytes_to_device": pixels + 4 * batch_size,
        "bytes_to_host": 4 * width,
    }


def first_training(run: RunConfig, programs: str, resident: bool, deterministic: bool) -> Numbers:
    """A training whose programs are compiled: seconds, hash of its end, losses; its state half-way is kept."""
    with kept_programs(StudyDir(Path(programs))):
        training = Training(run, resident, deterministic)
        compiled = _seconds(lambda: training.steps(0, 1))
        training.assign(training.first)
        half = training.num_steps // 2
        losses = training.steps(0, half)
        np.savez(Path(programs) / HALF, *training.state())
        losses = np.concatenate([losses, training.steps(half, training.num_steps)])
        return {
            "device": training.device.name,
            "resident": training.resident is not None,
            "seconds_to_compile": compiled,
            "programs": _num_programs(programs),
            "hash": training.hashed(),
            "losses": losses[:, LOSSES.index("total_loss")].tolist(),
        }


def second_training(run: RunConfig, programs: str, resident: bool, deterministic: bool, seconds: float) -> Numbers:
    """The same by programs that are kept: hashes in several ways, then so many seconds of steps, and their rate."""
    with kept_programs(StudyDir(Path(programs))):
        training = Training(run, resident, deterministic)
        loaded = _seconds(lambda: training.steps(0, 1))
        with np.load(Path(programs) / HALF) as kept:
            training.assign([kept[name] for name in kept.files])
        training.steps(training.num_steps // 2, training.num_steps)
        hashes = {"restarted half-way": training.hashed()}
        for length in (run.plan.probe.every_steps, *LENGTHS):
            training.assign(training.first)
            training.steps(0, training.num_steps, length)
            hashes[f"in blocks of {length}"] = training.hashed()
        num_steps, begun = 0, time.perf_counter()
        while (took := time.perf_counter() - begun) < seconds:
            training.steps(0, training.num_steps)
            num_steps += training.num_steps
        rate = num_steps / took
        found: Numbers = {
            "seconds_to_load": loaded,
            "programs": _num_programs(programs),
            "hashes": hashes,
            "steps_per_second": rate,
            "images_per_second": rate * run.arm.train.batch_size,
        }
        if training.device.kind == "gpu":
            found["bytes_at_most"] = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        return found


def _num_programs(folder: str) -> int:
    return sum(path.is_file() for path in StudyDir(Path(folder)).jobs.glob("programs-*/*"))


def plain_training(run: RunConfig, num_steps: int) -> Numbers:
    """Losses of the first steps, one after the other without XLA."""
    return {"losses": Training(run, resident=False).steps(0, num_steps)[:, LOSSES.index("total_loss")].tolist()}


def training_beside(run: RunConfig, programs: str, resident: bool, ready: Barrier) -> Numbers:
    """A training by kept programs, beside other processes: all wait before it, half-way and after it."""
    with kept_programs(StudyDir(Path(programs))):
        training = Training(run, resident)
        training.steps(0, 1)
        training.assign(training.first)
        half = training.num_steps // 2
        for start, end in ((0, half), (half, training.num_steps)):
            ready.wait()
            training.steps(start, end)
        ready.wait()
        return {"hash": training.hashed()}


def without_memory(ready: Barrier) -> Numbers:
    """Takes all memory that the device has left while another trains its first half, and keeps it until that ends."""
    device, taken = configure_tensorflow(TrainConfig(precision="float32")), list[tf.Tensor]()
    ready.wait()
    try:
        while True:
            taken.append(tf.zeros((PIECE if device.kind == "gpu" else MORE_THAN_ANY,), tf.uint8))
    except tf.errors.ResourceExhaustedError as error:
        said = str(error).splitlines()[0]
    ready.wait()
    ready.wait()
    return {"said": said, "gibibytes": len(taken)}


def trained(directory: str) -> Numbers:
    """The task itself, in a run's directory."""
    train.run(directory)
    return {}


def rates(run: RunConfig, side: int, num_bytes: int) -> Numbers:
    """What the device can do in the run's precision, and what one of its steps takes.

    Rates of products of two matrices of so many rows, and of reading and writing so many bytes; of a step the additions
    and multiplications and the bytes, see `flop_of_step` and `bytes_of_step`.
    """
    configure_tensorflow(run.arm.train)
    dtype = run.arm.train.policy.removeprefix("mixed_")
    matrix = tf.cast(tf.random.stateless_normal((side, side), (0, 1)) / side**0.5, dtype)
    values = tf.zeros((num_bytes // 4,))
    product = tf.function(lambda a: tf.matmul(a, matrix), jit_compile=True, autograph=False)
    copy = tf.function(lambda x: x + 1.0, jit_compile=True, autograph=False)
    net = build_net(run.arm, run.data.image_size, layer_seeds(run.key("initialisation")))
    batch_size = run.arm.train.batch_size
    return {
        "flop_per_second": 2 * side**3 / _seconds_each(product, matrix),
        "bytes_per_second": 2 * num_bytes / _seconds_each(copy, values),
        "flop_of_step": flop_of_step(net, batch_size),
        "bytes_of_step": bytes_of_step(net, batch_size),
    }


def _seconds_each(work: Callable[[tf.Tensor], tf.Tensor], start: tf.Tensor, repeats: int = 20) -> float:
    """Of one call of many, each of which takes the result of the one before."""
    values = work(work(start))
    float(tf.reshape(values, (-1,))[0])
    begun = time.perf_counter()
    for _ in range(repeats):
        values = work(values)
    float(tf.reshape(values, (-1,))[0])
    return (time.perf_counter() - begun) / repeats


def flop_of_step(net: Net, batch_size: int) -> int:
    """Additions and multiplications of convolutions and dense layers, forward and back; the images need no gradient."""
    total = 0
    for layer in (*net.encoder.layers, *net.decoder.layers):
        if hasattr(layer, "kernel"):
            transposed = isinstance(layer, (keras.layers.Conv2DTranspose, LogitsLayer))
            places = layer.input.shape[1:-1] if transposed else layer.output.shape[1:-1]
            products = 2 if layer is net.encoder.layers[1] else 3
            total += 2 * products * int(np.prod(layer.kernel.shape)) * int(np.prod(places))
    return total * batch_size


def bytes_of_step(net: Net, batch_size: int) -> int:
    """What normalisation and LeakyReLU read and write in eight passes, and Adam in seven over the float32 weights."""
    relus = [layer for layer in (*net.encoder.layers, *net.decoder.layers) if isinstance(layer, keras.layers.LeakyReLU)]
    width = 4 if net.arm.train.policy == "float32" else 2
    activations = batch_size * sum(int(np.prod(layer.output.shape[1:])) for layer in relus)
    weights = sum(int(np.prod(weight.shape)) for weight in net.trainable_variables)
    return 8 * width * activations + 7 * 4 * weights


def epochs_end(run: RunConfig, folder: str, resident: bool) -> Numbers:
    """Seconds of what a training does besides its steps: probe, measurement at an epoch's end, checkpoint, encoding."""
    training = Training(run, resident)
    batch_size = run.arm.train.batch_size
    measure = measuring(training.net, training.images, batch_size, training.resident)
    found = {}
    for name, count in (("probe", run.plan.probe.num_images), ("measurement", run.arm.train.eval_images)):
        number = min(count, len(training.images))
        measure(number)
        found[f"seconds_of_{name}"] = _seconds(lambda number=number: measure(number))  # type: ignore[misc]
    (path := Path(folder) / run.name).mkdir()
    attempt = Attempt.start(RunDir(path), "train")
    found["seconds_of_checkpoint"] = _seconds(lambda: save_checkpoint(attempt, training.variables, Progress()))
    encode = compiled_encoder(training.net, batch_size)
    number = len(training.images) // batch_size * batch_size  # a smaller last batch would be compiled
    encode(training.images, batch_size)
    found["seconds_of_encoding_an_image"] = _seconds(lambda: encode(training.images, number)) / number
    return found


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
