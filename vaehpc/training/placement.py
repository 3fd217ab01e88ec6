"""Where TensorFlow computes what a block of steps is made of, by the kernels that a wheel has: it takes no GPU."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.kernels import get_registered_kernels_for_op

from vaehpc.schema.results import DeviceKind
from vaehpc.training.pipeline import put_images
from vaehpc.training.steps import OneProgram

KERNELS: dict[DeviceKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gpu": (("GPU", "DEFAULT"), ("XLA_GPU_JIT",)),
    "cpu": (("CPU", "DEFAULT"), ("XLA_CPU_JIT",)),
}
"""What TensorFlow's kernels, and XLA's, are registered for."""
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
ON_HOST = (tf.int32, tf.string, tf.resource, tf.variant)
"""Types whose values lie in the host's memory, or whose handles do, wherever they are arguments."""


@dataclass
class Found:
    """What is not done on the device."""

    num_operations: int = 0
    """That were looked at."""
    no_kernel: set[str] = field(default_factory=set)
    """Operations, with their types, that the device has no kernel for: TensorFlow moves them to the host."""
    crossing: set[str] = field(default_factory=set)
    """'producer > consumer.argument' of values that go between the memories of GPU and host."""
    in_loop: set[str] = field(default_factory=set)
    """Of these, what does so in every step."""


class Placement:
    """Follows values through a function and those that it calls, on a machine with this kind of device."""

    def __init__(self, function: Any, kind: DeviceKind = "gpu") -> None:
        self._kernels, self._kernels_of_xla = KERNELS[kind]
        self._has_own_memory = kind == "gpu"
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
            self.found.num_operations += not _called(node)
            wanted = self._inputs(node)
            for name, (argument, wanted_memory) in zip(_data_inputs(node), wanted, strict=True):
                where = memory[name]
                if self._has_own_memory and wanted_memory not in (where, "any") and where != "any":
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
                if self._has_own_memory and loops and name == node.attr["cond"].func.name and results == ["device"]:
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
            self.found.num_operations += not _called(node)
            if not _called(node) and _kernel(node, self._kernels_of_xla) is None:
                self.found.no_kernel.add(f"XLA: {_described(node)}")

    def _host_arguments(self, node: node_def_pb2.NodeDef) -> set[str] | None:
        """Arguments of the node that the device's kernel has in the host's memory; None: it runs on the host."""
        if "CPU" in node.device:
            return None
        if _called(node):
            return set()
        kernel = _kernel(node, self._kernels)
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


def placement(
    block: OneProgram,
    shapes: Sequence[tuple[int, int, bool]],
    memory: tf.Variable,
    kind: DeviceKind = "gpu",
) -> Found:
    """All functions that a block calls, as they are traced here.

    Args:
        block: whose calls.
        shapes: at most so many steps, of so many images, with the spike or without: of each call.
        memory: room for images on the device.
        kind: of the device.
    """
    found = Found()
    for function in (*_functions(block, shapes), *_copies(memory)):
        of_function = Placement(function, kind).found
        found.num_operations += of_function.num_operations
        found.no_kernel |= of_function.no_kernel
        found.crossing |= of_function.crossing
        found.in_loop |= of_function.in_loop
    return found


def _functions(block: OneProgram, shapes: Sequence[tuple[int, int, bool]]) -> Iterator[Any]:
    """Noise and program of each call."""
    for shape in shapes:
        noise, program = block.calls(*shape)
        # tf.function's own attribute, which a callable's type does not have.
        yield (drawn := noise.get_concrete_function(tf.TensorSpec((), tf.int64)))  # type: ignore[attr-defined]
        rows, number = tf.TensorSpec(shape[:2], tf.int32), tf.TensorSpec((), tf.int32)
        epsilon = tf.TensorSpec(drawn.output_shapes, tf.float32)
        yield program.get_concrete_function(rows, epsilon, number)  # type: ignore[attr-defined]


def _copies(memory: tf.Variable) -> Iterator[Any]:
    """What puts images into the device's memory, and takes some out of it to encode them."""
    images = tf.TensorSpec((16, *memory.shape[1:]), tf.uint8)
    yield tf.function(lambda: tf.zeros(memory.shape, tf.uint8)).get_concrete_function()
    yield tf.function(lambda images: put_images(memory, 0, images)).get_concrete_function(images)
    yield tf.function(lambda: memory[:16]).get_concrete_function()
