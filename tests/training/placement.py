"""Where TensorFlow computes what a block of steps is made of, by the kernels that a wheel has: no GPU is needed for it.

As a command it prints what `looked_at` finds of every kind of run, as JSON; the wheel that is asked is that of the
Python which runs it, as a rule the one with GPU kernels.
"""

from __future__ import annotations

import vaehpc  # isort: skip  # noqa: F401  # before TensorFlow, so that oneDNN is on

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.kernels import get_registered_kernels_for_op

from tests.examples import run_config
from vaehpc.schema.config import SpikeConfig
from vaehpc.training.fit import build_optimizer
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.pipeline import device_memory
from vaehpc.training.steps import OneProgram

GPU, XLA = ("GPU", "DEFAULT"), ("XLA_GPU_JIT",)
"""What kernels are registered for."""
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
ON_HOST = (tf.int32, tf.string, tf.resource, tf.variant)
"""Types whose values lie in the host's memory, or whose handles do, wherever they are arguments."""
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
IMAGES = np.zeros((36, 16, 16, 3), np.uint8)
"""Two batches of 16 and one of 4."""


@dataclass
class Found:
    """What is not done on the GPU."""

    no_kernel: set[str] = field(default_factory=set)
    """Operations, with their types, that the GPU has no kernel for: TensorFlow moves them to the host."""
    crossing: set[str] = field(default_factory=set)
    """'producer > consumer.argument' of values that go between the memories of GPU and host."""
    in_loop: set[str] = field(default_factory=set)
    """Of these, what does so in every step."""


class Placement:
    """Follows values through a function and those that it calls, on a machine with a GPU."""

    def __init__(self, function: Any) -> None:
        self._functions = {each.signature.name: each for each in function.graph.as_graph_def().library.function}
        self._functions[function.function_def.signature.name] = function.function_def
        self.found = Found()
        if _is_compiled(function.function_def):
            self._compile(function.function_def)
        else:
            self._follow(function.function_def, in_loop=False)

    def _follow(self, function: Any, in_loop: bool) -> list[str]:
        """Look at a function outside of XLA; the memory that each of its results lies in."""
        memory = {arg.name: _memory_of(tf.as_dtype(arg.type)) for arg in function.signature.input_arg}
        ops = {arg.name: "argument" for arg in function.signature.input_arg}
        for node in _in_order(function):
            wanted = self._inputs(node)
            for name, (argument, wanted_memory) in zip(_data_inputs(node), wanted, strict=True):
                where = memory[name]
                if wanted_memory not in (where, "any") and where != "any":
                    crossing = f"{ops[name]} > {node.op}.{argument}"
                    self.found.crossing.add(crossing)
                    if in_loop:
                        self.found.in_loop.add(crossing)
            for name, where in self._outputs(node, in_loop):
                memory[name], ops[name] = where, node.op
        return [memory[value] for value in function.ret.values()]

    def _inputs(self, node: node_def_pb2.NodeDef) -> list[tuple[str, str]]:
        """Name of each input, and the memory that it has to be in."""
        host_arguments = self._host_arguments(node)
        found = []
        for arg in op_def_registry.get(node.op).input_arg:
            for dtype in _types(arg, node):
                if _is_handle(dtype) or node.op in (*CALLS, "While", "StatelessWhile", "If", "StatelessIf"):
                    found.append((arg.name, "any"))
                else:
                    on_host = host_arguments is None or arg.name in host_arguments
                    found.append((arg.name, "host" if on_host else "device"))
        return found

    def _outputs(self, node: node_def_pb2.NodeDef, in_loop: bool) -> Iterator[tuple[str, str]]:
        """Name of each output, and the memory that it comes to lie in; follows what the node calls."""
        host_arguments = self._host_arguments(node)
        loops = node.op in ("While", "StatelessWhile")
        for name in _called(node):
            called = self._functions[name]
            if _is_compiled(called) or _is_compiled(node):
                self._compile(called)
            else:
                results = self._follow(called, in_loop or loops)
                if loops and name == node.attr["cond"].func.name and results == ["device"]:
                    self.found.crossing.add("the loop's condition")
                    self.found.in_loop.add("the loop's condition")
        for arg in op_def_registry.get(node.op).output_arg:
            for number, dtype in enumerate(_types(arg, node)):
                if _called(node):
                    where = _memory_of(dtype)
                elif _is_handle(dtype) or node.op == "Const":
                    where = "any"
                else:
                    where = "host" if host_arguments is None or arg.name in host_arguments else "device"
                yield f"{node.name}:{arg.name}:{number}", where

    def _compile(self, function: Any) -> None:
        """Look at a function that XLA compiles: everything in it has to be known to XLA, and stays on the device."""
        for node in function.node_def:
            for name in _called(node):
                self._compile(self._functions[name])
            if not _called(node) and _kernel(node, XLA) is None:
                self.found.no_kernel.add(f"XLA: {_described(node)}")

    def _host_arguments(self, node: node_def_pb2.NodeDef) -> set[str] | None:
        """Arguments of the node that its GPU kernel has in the host's memory; None: it runs on the host."""
        if "CPU" in node.device:
            return None
        if _called(node):
            return set()
        kernel = _kernel(node, GPU)
        if kernel is None:
            self.found.no_kernel.add(_described(node))
            return None
        return set(kernel.host_memory_arg)


def _is_compiled(described: Any) -> bool:
    """Whether XLA has to compile this function or node."""
    return "_XlaMustCompile" in described.attr and bool(described.attr["_XlaMustCompile"].b)


def _in_order(function: Any) -> Iterator[node_def_pb2.NodeDef]:
    """Nodes after those that they depend on."""
    waiting = {node.name: node for node in function.node_def}
    while waiting:
        ready = [
            node
            for node in waiting.values()
            if not any(name.lstrip("^").partition(":")[0] in waiting for name in node.input)
        ]
        for node in ready:
            del waiting[node.name]
        yield from ready


def _data_inputs(node: node_def_pb2.NodeDef) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]


def _called(node: node_def_pb2.NodeDef) -> list[str]:
    return [value.func.name for value in node.attr.values() if value.HasField("func")]


def _types(arg: Any, node: node_def_pb2.NodeDef) -> list[tf.DType]:
    """Of each value of an argument."""
    if arg.type_list_attr:
        return [tf.as_dtype(kind) for kind in node.attr[arg.type_list_attr].list.type]
    kind = tf.as_dtype(arg.type or node.attr[arg.type_attr].type)
    return [kind] * (node.attr[arg.number_attr].i if arg.number_attr else 1)


def _is_handle(dtype: tf.DType) -> bool:
    return dtype in (tf.resource, tf.variant)


def _memory_of(dtype: tf.DType) -> str:
    """Of an argument or result of a function."""
    return "any" if _is_handle(dtype) else "host" if dtype in ON_HOST else "device"


def _described(node: node_def_pb2.NodeDef) -> str:
    kinds = {value.type for value in node.attr.values() if value.type}
    return f"{node.op}({', '.join(sorted(tf.as_dtype(kind).name for kind in kinds))})"


@functools.cache
def _kernels(op: str, devices: tuple[str, ...]) -> list[Any]:
    return [kernel for kernel in get_registered_kernels_for_op(op).kernel if kernel.device_type in devices]


def _kernel(node: node_def_pb2.NodeDef, devices: tuple[str, ...]) -> Any:
    """The kernel that takes the node's types; None: there is none."""
    for kernel in _kernels(node.op, devices):
        allowed = ((node.attr[each.name], each.allowed_values.list.type) for each in kernel.constraint)
        if all({value.type, *value.list.type} - {0} <= set(types) for value, types in allowed):
            return kernel
    return None


def looked_at(kind: str, precision: str, spike: str | None, resident: bool) -> Found:
    """All functions that a run's block calls, traced here as on a GPU."""
    run = run_config(kind, num_train=len(IMAGES), train={"precision": precision, "jit_compile": True})
    disturbed = spike and SpikeConfig(kind=spike, strength=10.0, steps_before_end=2)  # type: ignore[arg-type]
    run = run.model_copy(update={"arm": run.arm.model_copy(update={"spike": disturbed})})
    net = build_net(run.arm, 16, layer_seeds(run.key("initialisation")))
    memory = device_memory(IMAGES, len(IMAGES))
    block = OneProgram(run, IMAGES, net, build_optimizer(run.arm.train, net), True, memory if resident else None)
    found = Found()
    shapes = [(2, 16, False), (1, 4, False)] + [(1, 16, True)] * (spike is not None)
    for function in (*functions(block, shapes), *copies(memory)):
        for name, values in vars(Placement(function).found).items():
            getattr(found, name).update(values)
    return found


def functions(block: OneProgram, shapes: list[tuple[int, int, bool]]) -> Iterator[Any]:
    """What the block calls: noise and program of so many steps of so many images, with the spike or without."""
    for shape in shapes:
        noise, program = block.calls(*shape)
        yield (drawn := noise.get_concrete_function(tf.TensorSpec((), tf.int64)))
        rows, number = tf.TensorSpec(shape[:2], tf.int32), tf.TensorSpec((), tf.int32)
        yield program.get_concrete_function(rows, tf.TensorSpec(drawn.output_shapes, tf.float32), number)


def copies(memory: tf.Variable) -> Iterator[Any]:
    """What puts images into the device's memory, and takes some out of it to encode them."""
    images = tf.TensorSpec((16, *IMAGES.shape[1:]), tf.uint8)
    yield tf.function(lambda: tf.zeros(IMAGES.shape, tf.uint8)).get_concrete_function()
    yield tf.function(lambda images: memory[:16].assign(images)).get_concrete_function(images)
    yield tf.function(lambda: memory[:16]).get_concrete_function()


def main() -> None:
    """Every kind of run."""
    runs = product(("ae", "vae"), PRECISIONS, (None, "gradient", "log_var"), (True, False))
    found = {
        " ".join(map(str, run)): {name: sorted(values) for name, values in vars(looked_at(*run)).items()}
        for run in runs
        if run[::2] != ("ae", "log_var")
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
