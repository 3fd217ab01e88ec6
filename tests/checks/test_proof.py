"""What a GPU node proves of itself: how each point is judged, and the whole by a processor."""

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checks.test_machine_checks import machine, tensorflow
from vaehpc import doctor
from vaehpc.checks import node as of_node
from vaehpc.checks import proof
from vaehpc.checks.node import COMBINATIONS, FailedError, Node, Numbers, Work
from vaehpc.command import UserError
from vaehpc.local.starting import fork_server
from vaehpc.tasks.visit import MachineReport

H100 = tensorflow(gpus=("NVIDIA H100",), capabilities=("9.0",))
ENVIRONMENT = {"VAEHPC_GPUS": "0"}


def gpu_node(monkeypatch: pytest.MonkeyPatch, folder: Path, report: MachineReport | None = None) -> Node:
    """With a GPU that was given, and what its machine says."""
    monkeypatch.setattr(of_node, "visible_gpus", lambda: ["GPU-1"])
    node = Node("gpu", folder)
    node.machine = report or machine(H100, given_gpus=("GPU-1",), driver="560.35.05")
    return node


def first(**changes: Any) -> Numbers:
    return {
        "seconds_to_compile": 30.0,
        "programs": 3,
        "hash": "a",
        "losses": [5000.0] * 20,
        "resident": True,
    } | changes


def second(**changes: Any) -> Numbers:
    ways = ("restarted half-way", "in blocks of 50", "in blocks of 1", "in blocks of 7")
    return {
        "seconds_to_load": 2.0,
        "programs": 3,
        "hashes": dict.fromkeys(ways, "a"),
        "steps_per_second": 1000.0,
        "images_per_second": 128000.0,
    } | changes


def measured(node: Node, name: str, of_first: Numbers | FailedError, of_second: Mapping[str, Any]) -> Node:
    """All combinations as they should be but this one."""
    node.first = dict.fromkeys(COMBINATIONS, first()) | {name: of_first}
    node._second = dict.fromkeys(COMBINATIONS, second()) | {name: dict(of_second)}
    return node


# Points that go on


def test_a_point_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(_: Node) -> proof.Outcome:
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS\nand a trace")

    points = {1: ("first", fails), 2: ("second", lambda _: proof.Outcome(True, "as it should be"))}
    monkeypatch.setattr(proof, "POINTS", points)
    found = list(proof.proven(Node("cpu", tmp_path), [1, 2]))
    assert [(point.ok, point.said) for point in found] == [
        (False, "RuntimeError: CUDA_ERROR_ILLEGAL_ADDRESS"),
        (True, "as it should be"),
    ]


def test_a_combination_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node = measured(gpu_node(monkeypatch, tmp_path), "float32", FailedError("first_training ended with -11"), {})
    found = proof.hashes(node)
    assert found.ok is False
    assert "; float32: first_training ended with -11" in found.said
    assert "bfloat16 resident, bfloat16 from the host, tf32: the same bits in 5 trainings of 200 steps" in found.said


def test_what_takes_a_gpu_is_never_ok_on_a_processor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = tmp_path / "proof.json"
    assert doctor.main(["--gpu", "--device", "cpu", "--only", "7,1,2", "--json", str(numbers)]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line[:12] for line in lines] == ["left out   1", "left out   2", "left out   7"]
    assert all("it takes a GPU, and --device cpu means the processor" in line for line in lines)
    assert last.startswith("Nothing wrong, 3 left out, in whole or in part, of 3, after ")
    assert [point["ok"] for point in json.loads(numbers.read_text())["points"]] == [None] * 3


def test_without_the_gpu_that_is_meant_every_point_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(of_node, "visible_gpus", list)
    monkeypatch.setattr(of_node, "machine_report", lambda *_, **__: machine(tensorflow(), given_gpus=("0",)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert doctor.main(["--gpu"]) == 3
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 13
    assert all(line.startswith("WRONG") for line in lines)
    assert "TensorFlow sees 0 of 1" in lines[0]
    assert all("TensorFlow uses no GPU here: see point 1" in line for line in lines[1:])
    assert last.startswith("13 wrong (1 GPU, ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", ["14", "4;8", "", "all"])
def test_points_are_asked_for_by_their_numbers(asked: str) -> None:
    with pytest.raises(UserError, match=r"is no point\. Points, with commas between them: 1 GPU, 2 libraries, "):
        proof.asked_points(asked)
    assert proof.asked_points("8, 4,8") == [4, 8]
    assert proof.asked_points(None) == list(range(1, 14))


# Points that are judged


@pytest.mark.parametrize(
    ("capability", "driver", "ok", "said"),
    [
        ("9.0", "560.35.05", True, "compute capability 9.0, driver 560.35.05; a whole GPU; no MPS"),
        ("9.0", "550.54.15", False, "driver 550.54.15 of NVIDIA H100 (compute capability 9.0) is too old"),
        ("10.0", "570.00.00", False, "is newer than what the lock train-gpu has code for"),
    ],
)
def test_model_and_driver_are_held_against_the_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: str, driver: str, ok: bool, said: str
) -> None:
    monkeypatch.setattr(proof, "gpu_name", lambda: "NVIDIA H100")
    report = machine(
        tensorflow(gpus=("NVIDIA H100",), capabilities=(capability,)), given_gpus=("GPU-1",), driver=driver
    )
    found = proof.device(gpu_node(monkeypatch, tmp_path, report))
    assert found.ok is ok
    assert said in found.said


@pytest.mark.parametrize(
    ("changes", "ok"), [({}, True), ({"in blocks of 7": "b"}, False), ({"restarted half-way": "b"}, False)]
)
def test_other_bits_are_wrong_where_they_are_promised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changes: dict[str, str], ok: bool
) -> None:
    found = second(hashes=second()["hashes"] | changes)
    node = measured(gpu_node(monkeypatch, tmp_path), "tf32", first(), found)
    assert proof.hashes(node).ok is ok
    assert all(f"OTHER bits {way}" in proof.hashes(node).said for way in changes)
    node = measured(node, "bfloat16 without determinism", first(), found)
    assert proof.hashes(node).ok is True


@pytest.mark.parametrize(("kept", "after", "ok"), [(3, 3, True), (3, 4, False), (0, 0, False)])
def test_programs_have_to_be_kept_and_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: int, after: int, ok: bool
) -> None:
    node = gpu_node(monkeypatch, tmp_path)
    assert proof.compiling(measured(node, "float32", first(programs=kept), second(programs=after))).ok is ok


def test_a_gpu_slower_than_the_articles_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node = gpu_node(monkeypatch, tmp_path)
    found = proof.speed(measured(node, "tf32", first(), second(images_per_second=1300.0)))
    assert found.ok is False
    assert "tf32: 1,300, slower than the article's 1,422" in found.said
    assert proof.speed(measured(node, "tf32", first(), second())).ok is True


@pytest.mark.parametrize(
    ("name", "loss", "ok"),
    [("float32", 5000.4, True), ("float32", 5000.6, False), ("float32", math.nan, False), ("tf32", 5010.0, True)],
)
def test_losses_in_true_float32_are_the_processors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, loss: float, ok: bool
) -> None:
    node = measured(gpu_node(monkeypatch, tmp_path), name, first(losses=[5000.0] * 19 + [loss]), second())
    monkeypatch.setattr(Node, "run", lambda *_, **__: None)
    monkeypatch.setattr(Node, "alone", lambda *_: {"losses": [5000.0] * 20})
    assert proof.against_cpu(node).ok is ok


def test_a_gpu_without_units_for_bfloat16_proves_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = machine(tensorflow(gpus=("Tesla V100",), capabilities=("7.0",)), given_gpus=("GPU-1",))
    node = measured(gpu_node(monkeypatch, tmp_path, report), "float32", first(), second())
    assert node.usual == "float32"
    found = proof.hashes(node)
    assert found.ok is True
    assert [name for name, numbers in found.numbers.items() if numbers] == ["float32"]
    assert "tf32: left out, no units for it; float32: the same bits" in found.said


# For real


@pytest.fixture
def optimised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's net computes for longer than it compiles: its processes have LLVM's optimisations."""
    monkeypatch.delenv("XLA_FLAGS")


DIFFERENT = ("bfloat16 resident", "bfloat16 from the host", "float32")
"""The combinations that differ on a processor, which has neither TF32 nor a way without determinism."""


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(DIFFERENT, marks=pytest.mark.slow, id="different"),
        pytest.param(tuple(COMBINATIONS), marks=pytest.mark.long, id="all"),
    ],
)
@pytest.mark.usefixtures("optimised")
def test_the_whole_by_a_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    for module in (of_node, proof):
        monkeypatch.setattr(module, "COMBINATIONS", {name: COMBINATIONS[name] for name in names})
    fork_server()  # takes a folder for its socket, for which scratch may be too deep: then each process imports anew
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    code = doctor.main(["--gpu", "--device", "cpu", "--json", str(tmp_path / "proof.json")])
    print(said := capsys.readouterr().out)
    assert code == 0, said
    points = {point["number"]: point for point in json.loads((tmp_path / "proof.json").read_text())["points"]}
    left_out = {1, 2, 7, 13}  # of the last only the hidden GPU
    assert {number: point["ok"] for number, point in points.items()} == {
        number: None if number in left_out else True for number in proof.POINTS
    }
    hashes = points[6]["numbers"]
    assert hashes.keys() == set(names)
    assert len({tuple(of_name.values()) for of_name in hashes.values()}) == 2  # bfloat16, and float32 with tf32
    assert (
        0
        < points[8]["numbers"]["float32"]["largest_difference"]
        < points[8]["numbers"]["bfloat16 resident"]["largest_difference"]
    )
    assert points[13]["numbers"]["trained_to"] == 9
    assert not [path for path in (tmp_path / "scratch").iterdir() if path.name.startswith("vaehpc")]


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_what_goes_wrong_in_a_process_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of one combination: other bits of runs side by side, a spoilt state, a process that ends or hangs."""
    only = {"float32": COMBINATIONS["float32"]}
    for module in (of_node, proof):
        monkeypatch.setattr(module, "COMBINATIONS", only)
    node = Node("cpu", tmp_path)
    assert proof.side_by_side(node, 2) == ("float32", 0)
    _, programs, _ = node.training("float32")
    state = Path(programs) / "state.npz"
    with np.load(state) as kept:
        arrays = {name: kept[name] for name in kept.files}
    arrays["arr_0"] = np.nextafter(arrays["arr_0"], 1, dtype=np.float32)
    np.savez(state, **arrays)
    assert "OTHER bits restarted half-way" in proof.hashes(node).said
    node.first = {"float32": node.first["float32"] | {"hash": "another"}}  # type: ignore[operator]
    assert proof.side_by_side(node, 2) == ("float32", 2)
    lost, refused = node.together(
        [Work("trained", (str(tmp_path / "nowhere"),), ENVIRONMENT), Work("drawn", ("/proc/x", 8, 16), ENVIRONMENT)]
    )
    assert isinstance(lost, FailedError)
    assert "nowhere" in str(lost)
    assert isinstance(refused, FailedError)
    waiting = node.work("training_beside", *node.training("float32"), waits=True)
    found = node.together([waiting, node.work("kernels", waits=True)])
    assert ["BrokenBarrierError" in str(each) for each in found] == [True, False]
    with pytest.raises(FailedError, match="TypeError"):
        of_node.required(found)
    monkeypatch.setattr(of_node, "LIMIT_SECONDS", 0.0)
    (late,) = node.together([Work("kernels", (), ENVIRONMENT)])
    assert "did not end within 0 s" in str(late)
