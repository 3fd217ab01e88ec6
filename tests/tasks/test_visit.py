"""What a visit finds on its machine, for real where this machine can show it, from recorded output where it cannot."""

import json
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from vaehpc.machine.processes import processors
from vaehpc.schema.config import DataConfig
from vaehpc.study.files import read_model, write_model
from vaehpc.tasks.visit import (
    CONVOLVED_ONES,
    TensorflowReport,
    VisitDir,
    VisitReport,
    VisitRequest,
    compute_with_tensorflow,
    data_report,
    machine_report,
    nvidia_smi,
    parsed_tensorflow,
    run,
    tensorflow_report,
)

NO_DRIVER = """\
I0000 00:00:1795354479.340460   21483 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.
I0000 00:00:1795354482.109419   21483 dso_loader.cc:144] Could not load dynamic library 'libcuda.so.1'; dlerror: libcuda.so.1: cannot open shared object file: No such file or directory
E0000 00:00:1795354482.109479   21483 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)
"""  # noqa: E501
"""TensorFlow 2.21 with CUDA on a machine without a driver."""
NO_LIBRARY = """\
I0000 00:00:1795354508.930603   22115 dso_loader.cc:133] Successfully opened dynamic library libcuda.so.1
I0000 00:00:1795354508.931065   22115 dso_loader.cc:144] Could not load dynamic library 'libnvidia-ml.so.1'; dlerror: libnvidia-ml.so.1: cannot open shared object file: No such file or directory; LD_LIBRARY_PATH: /opt
"""  # noqa: E501
"""The same with a driver, but without one of its libraries."""


def answered(gpus: list[str], total: float = CONVOLVED_ONES) -> str:
    return f"something else\n{json.dumps({'version': '2.21.0', 'gpus': gpus, 'sum': total})}\n"


def ask(folder: Path, data: str | None = None, seconds: float = 30.0) -> VisitDir:
    visit = VisitDir(folder)
    request = VisitRequest(tensorflow=False, extras=(), environment=("SEEN",), data=data, answer_seconds=seconds)
    write_model(visit.request_path, request)
    return visit


# The job


def test_a_visit_reports_its_machine_the_data_and_how_long_an_answer_took(
    tmp_path: Path, faces: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEN", "by the task")
    monkeypatch.setenv("SLURMD_NODENAME", "g1")
    visit = ask(tmp_path, faces.path)
    job = threading.Thread(target=run, args=(str(tmp_path),))
    job.start()
    while not visit.started.exists():
        time.sleep(0.01)
    visit.answer.touch()
    job.join()
    report = read_model(visit.result_path, VisitReport)
    assert report.answer_seconds is not None
    assert (report.machine.host, report.machine.environment) == ("g1", {"SEEN": "by the task"})
    assert report.machine.executable == sys.executable
    assert report.machine.processors == processors()
    assert report.machine.memory_bytes > 2**20
    assert report.machine.tensorflow is None
    assert report.data is not None
    assert report.data.problem is None
    assert report.data.manifest is not None
    assert report.data.manifest.sha256 == faces.sha256


def test_a_visit_that_nobody_answers_says_so(tmp_path: Path) -> None:
    visit = ask(tmp_path, seconds=0.1)
    run(str(tmp_path))
    assert read_model(visit.result_path, VisitReport).answer_seconds is None


# TensorFlow and GPUs


def test_tensorflow_computes_here_by_a_compiled_step_and_with_onednn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to={tmp_path}")
    # As a process of the suite is started. TensorFlow says so once, and reads the switch when it is imported.
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    said = list[str]()

    def parsed(stdout: str, stderr: str, failure: str | None) -> TensorflowReport:
        said.append(stderr)
        return parsed_tensorflow(stdout, stderr, failure)

    monkeypatch.setattr("vaehpc.tasks.visit.parsed_tensorflow", parsed)
    report = tensorflow_report()
    assert report.version is not None
    assert report.error is None
    assert list(tmp_path.glob("*_step_*.txt"))
    assert "oneDNN custom operations are on" in said[0]


def test_the_look_at_tensorflow_runs_kernels_that_stay_outside_of_compiled_programs() -> None:
    """Of these TensorFlow's wheel has for some GPUs only what an old driver cannot compile."""
    executed = set[tuple[str, str]]()

    def note(kind: str, inputs: tuple[tf.Tensor, ...], *_: object, graph: object = None, **__: object) -> None:
        if graph is None:
            executed.update((str(kind), each.dtype.name) for each in inputs)

    op_callbacks.add_op_callback(note)
    try:
        compute_with_tensorflow()
    finally:
        op_callbacks.remove_op_callback(note)
    assert executed >= {
        ("Cast", "bool"),
        ("Less", "int64"),
        ("Mul", "float32"),
        ("AddV2", "float32"),
        ("StatelessRandomNormalV2", "uint64"),  # Philox
    }


def test_a_tensorflow_that_cannot_be_imported_has_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('libstdc++.so.6: version GLIBCXX_3.4.30 not found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = tensorflow_report()
    assert report.version is None
    assert report.error == "ImportError: libstdc++.so.6: version GLIBCXX_3.4.30 not found"


def test_gpus_are_named() -> None:
    report = parsed_tensorflow(answered(["NVIDIA H100"]), "", None)
    assert (report.version, report.gpus, report.error) == ("2.21.0", ("NVIDIA H100",), None)


def test_a_missing_driver_and_a_missing_library_are_named() -> None:
    report = parsed_tensorflow(answered([]), NO_DRIVER, None)
    assert report.missing_libraries == ("libcuda.so.1",)
    assert report.driver_error == "INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)"
    report = parsed_tensorflow(answered([]), 2 * NO_LIBRARY, None)
    assert (report.missing_libraries, report.driver_error) == (("libnvidia-ml.so.1",), None)


def test_tensorrt_which_nobody_needs_is_not_named() -> None:
    assert (
        parsed_tensorflow(answered([]), "Could not load dynamic library 'libnvinfer.so.7'", None).missing_libraries
        == ()
    )


def test_a_gpu_that_computes_wrongly_is_an_error() -> None:
    assert (
        parsed_tensorflow(answered(["NVIDIA H100"], 2903.0), "", None).error
        == "a convolution of ones gave 2903.0 and not 2904"
    )


def test_nvidia_smi_is_asked_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi() is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA H100, 550.54, 81559 MiB\n")
    program.chmod(0o755)
    assert nvidia_smi() == ("NVIDIA H100, 550.54, 81559 MiB",)
    program.write_text("#!/bin/sh\necho Failed to initialize NVML; exit 18\n")
    assert nvidia_smi() == ()


def test_a_report_without_tensorflow_does_not_import_it() -> None:
    before = "tensorflow" in sys.modules
    assert machine_report((), (), tensorflow=False).tensorflow is None
    assert ("tensorflow" in sys.modules) is before


# Data


def test_a_damaged_a_missing_and_no_data_set(own_faces: DataConfig) -> None:
    folder = Path(own_faces.path)
    report = data_report(folder)
    assert report.problem is None
    assert report.manifest is not None
    shard = folder / report.manifest.shards[0].file
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + b"x" + whole[101:])
    assert data_report(folder).problem == f"{shard} is damaged: its SHA-256 is not the manifest's"
    shard.unlink()
    num_files = 2 + len(report.manifest.shards)
    assert data_report(folder).problem == f"1 of the {num_files} files of {folder} are missing, {shard.name} first"
    shutil.rmtree(folder)
    assert "holds no data set" in str(data_report(folder).problem)
    assert data_report(folder).manifest is None
