"""What status says of a study: every state, told by planted files and recorded answers of Slurm; the real cluster is in
tests/cluster."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import plant
from tests.examples import AE, VAE, measured_run, study_config
from tests.plant import BEAT, HOUR
from tests.slurm.clients import Clients
from vaehpc import status
from vaehpc.command import duration
from vaehpc.machine.processes import process_start
from vaehpc.monitoring import states
from vaehpc.monitoring.causes import rounded_up
from vaehpc.monitoring.live import is_live
from vaehpc.monitoring.states import Looks, RunState, StudyState, read_study
from vaehpc.stats.summary import summarise
from vaehpc.study.attempts import write_record
from vaehpc.study.files import BatchDir, RunDir, StudyDir, write_model
from vaehpc.tasks.aggregate import read_reference

RUN = "vae-tiny-seed000"


@pytest.fixture(autouse=True)
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Slurm's clients, which know of nothing."""
    found = Clients(tmp_path / "bin")
    monkeypatch.setenv("PATH", found.path())
    return found


@dataclass
class Planted:
    """A study of one run that was sent to Slurm: training 4711, statistics 4712, each an array of two elements."""

    study: StudyDir
    run: RunDir
    train: BatchDir
    statistics: BatchDir

    def state(self, seconds: float = 5.0) -> RunState:
        """Of the run that is looked at."""
        return next(run for run in self.whole(seconds).runs if run.run == RUN)

    def whole(self, seconds: float = 5.0) -> StudyState:
        return read_study(self.study, seconds)


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    study = plant.study(tmp_path / "planted", study_config([AE, VAE]))
    for stage in ("train", "statistics"):  # the other run is done
        plant.start(study.run("ae-seed000"), stage, job="1_0", ago=2 * HOUR, seen_ago=HOUR, outcome="done")
    study.run("ae-seed000").trained_path.write_text("{}")
    study.run("ae-seed000").statistics_path.write_text("{}")
    elements = [["ae-seed000"], [RUN]]
    train = plant.batch(study, "train-0001", elements, "4711", ago=2 * HOUR)
    return Planted(study, study.run(RUN), train, plant.batch(study, "statistics-0001", elements, "4712", ago=2 * HOUR))


def pending(element: str, reason: str) -> str:
    return f"{element}|PENDING||{reason}|1-00:00:00|gpu|/somewhere\n"


def running(element: str, left: str = "20:00:00", state: str = "RUNNING") -> str:
    return f"{element}|{state}|gpu3|None|{left}|gpu|/somewhere\n"


def account(element: str, state: str, max_rss: str = "", node: str = "gpu3") -> str:
    return (
        f"{element}|{state}|0:9|{node}|3600|4|01:00:00||\n"
        f"{element}.batch|{state}|0:9|{node}|3600|4|00:00:01|11140K|cpu=00:00:01,mem=11140K\n"
        f"{element}.0|{state}|0:9|{node}|3599|4|00:59:59|{max_rss}|cpu=00:59:59,mem={max_rss}\n"
    )


# Queued and running


def test_a_run_that_waits_says_why(planted: Planted, clients: Clients) -> None:
    clients.answers("squeue", pending("4711_1", "Priority"))
    state = planted.state()
    assert (state.kind, state.note, state.node, state.failure) == ("waiting", "Priority", None, None)
    assert len(clients.lines()) == 1  # accounting is not asked where the queue has told all


def test_a_running_element_whose_task_has_not_begun_is_starting(planted: Planted, clients: Clients) -> None:
    clients.answers("squeue", running("4711_1"))
    plant.note(planted.train, 1, ("start", "4711_1"))
    assert (planted.state().kind, planted.state().node) == ("starting", "gpu3")


def test_a_training_says_how_far_it_is_and_how_long_it_takes(planted: Planted, clients: Clients) -> None:
    clients.answers("squeue", running("4711_1"))
    plant.note(planted.train, 1, ("start", "4711_1"))
    plant.start(planted.run, job="4711_1", beat=BEAT | {"step": 4, "epoch": 1, "steps_per_second": 0.01})
    state = planted.state()
    assert (state.kind, state.node, state.epoch, state.epochs, state.restarts) == ("training", "gpu3", 1, 2, 0)
    assert (state.steps_per_second, state.loss, state.radius, state.seconds_left) == (0.01, 812.4, 16.25, 600.0)
    assert state.note == ""


def test_a_time_limit_that_comes_first_is_said(planted: Planted, clients: Clients) -> None:
    clients.answers("squeue", running("4711_1", left="5:00"))
    plant.start(planted.run, job="4711_1", beat=BEAT | {"steps_per_second": 0.01})
    assert planted.state().note == "its time limit is in 5 min"


def test_a_training_that_writes_its_latents_has_no_steps_left(planted: Planted, clients: Clients) -> None:
    clients.answers("squeue", running("4711_1"))
    plant.start(planted.run, job="4711_1", beat=BEAT | {"step": 10})
    assert (planted.state().note, planted.state().seconds_left) == ("writing its latents", 0)


def test_a_task_without_a_sign_of_life_is_silent(planted: Planted, clients: Clients) -> None:
    clients.answers("squeue", running("4711_1"))
    plant.start(planted.run, job="4711_1", ago=HOUR, seen_ago=1500, beat=BEAT)
    assert (planted.state().kind, planted.state().note) == ("silent", "no sign of life for 25 min")


def requeued(planted: Planted, resumed_with: str | None) -> None:
    """A training that left a checkpoint of step 3 at its time limit, and started again."""
    plant.note(planted.train, 1, ("start", ""), ("requeue", "time limit"), ago=1000)
    stopped = BEAT | {"checkpoint_step": 3, "checkpoint_sha256": "abc"}
    plant.start(planted.run, job="4711_1", ago=HOUR, seen_ago=1000, beat=stopped, outcome="stopped")
    if resumed_with is not None:
        plant.note(planted.train, 1, ("start", ""))
        resumed = BEAT | {"start_step": 3, "start_sha256": resumed_with}
        plant.start(planted.run, job="4711_1", ago=60, beat=resumed)


def test_a_requeued_training_waits(planted: Planted, clients: Clients) -> None:
    requeued(planted, None)
    clients.answers("squeue", pending("4711_1", "BeginTime"))
    state = planted.state()
    assert (state.kind, state.note, state.restarts) == ("waiting", "requeued x1, BeginTime", 0)


def test_a_requeued_training_starts_again(planted: Planted, clients: Clients) -> None:
    requeued(planted, None)
    plant.note(planted.train, 1, ("start", ""))
    clients.answers("squeue", running("4711_1"))
    assert (planted.state().kind, planted.state().note) == ("starting", "requeued x1")
    plant.start(planted.run, job="4711_1", ago=60)
    assert (planted.state().kind, planted.state().loss) == ("training", 812.4)  # of the start before


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("abc", "requeued x1, resumed at step 3, hash of the state matches"),
        ("def", "requeued x1, resumed at step 3, hash of the state DIFFERS from the checkpoint's"),
        ("", "requeued x1, resumed at step 3"),  # nothing is claimed that no file proves
    ],
)
def test_a_resumed_training_says_whether_its_state_is_the_one_that_was_left(
    planted: Planted, clients: Clients, found: str, said: str
) -> None:
    requeued(planted, found)
    clients.answers("squeue", running("4711_1"))
    state = planted.state()
    assert (state.kind, state.note, state.restarts) == ("training", said, 1)


def test_the_hash_of_the_checkpoint_itself_counts_where_the_killed_start_did_not_note_it(
    planted: Planted, clients: Clients
) -> None:
    requeued(planted, "abc")
    beat = planted.run.attempts / "0001" / "heartbeat.json"
    beat.write_text(json.dumps(json.loads(beat.read_text()) | {"checkpoint_step": 2}))
    clients.answers("squeue", running("4711_1"))
    assert planted.state().note == "requeued x1, resumed at step 3"
    checkpoint = planted.run.checkpoints / "step-000000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "checkpoint.json").write_text('{"state_sha256": "abc"}')
    assert planted.state().note == "requeued x1, resumed at step 3, hash of the state matches"


def test_a_crash_that_is_tried_again_is_counted_apart(planted: Planted, clients: Clients) -> None:
    plant.note(planted.train, 1, ("start", ""), ("crash", "1"), ("requeue", "crash, not again on node1"))
    plant.start(planted.run, job="4711_1", ago=200, seen_ago=100, outcome="failed", error="no")
    clients.answers("squeue", pending("4711_1", "JobHeldUser"))
    assert (planted.state().kind, planted.state().note) == ("waiting", "crashed x1, JobHeldUser")


def test_states_of_slurm_itself_are_named(planted: Planted, clients: Clients) -> None:
    plant.start(planted.run, job="4711_1", beat=BEAT)
    clients.answers("squeue", running("4711_1", state="SUSPENDED"))
    assert planted.state().note == "suspended"


def test_a_pack_whose_other_runs_go_on_says_how_this_one_ended(planted: Planted, clients: Clients) -> None:
    plant.start(planted.run, job="4711_1", outcome="failed", error="no", beat=BEAT)
    clients.answers("squeue", running("4711_1"))
    assert planted.state().note == "its task has ended (failed), its element has not"


def test_an_array_whose_launcher_was_killed_before_it_noted_the_number(planted: Planted, clients: Clients) -> None:
    planted.train.job_path.unlink()
    assert (planted.state().kind, planted.state().note) == ("MISSING", "not submitted")
    clients.answers("squeue", f"4711_1|PENDING||Priority|1:00|gpu|{planted.train.path}\n")
    assert planted.state().kind == "waiting"


def test_trained_and_waiting_for_its_statistics(planted: Planted, clients: Clients) -> None:
    planted.run.trained_path.write_text("{}")
    plant.start(planted.run, job="4711_1", ago=900, beat=BEAT, outcome="done")
    clients.answers("squeue", pending("4712_1", "Resources"))
    state = planted.state()
    assert (state.kind, state.note, state.epoch) == ("trained", "statistics: waiting (Resources)", 2)
    clients.answers("squeue", running("4712_1"))
    plant.start(planted.run, "statistics", job="4712_1")
    assert planted.state().kind == "measuring"


def test_a_finished_run_shows_its_class(planted: Planted) -> None:
    planted.run.trained_path.write_text("{}")
    planted.run.statistics_path.write_text("{}")
    plant.start(planted.run, job="4711_1", ago=900, beat=BEAT, outcome="done")
    assert (planted.state().kind, planted.state().note) == ("done", "")
    config = planted.study.config()
    ae, vae = config.runs()
    summary = summarise(config, [measured_run(ae), measured_run(vae, "diverged")], read_reference())
    write_model(planted.study.summary_path, summary)
    assert (planted.state().kind, planted.state().note, planted.state().failure) == ("done", "diverged", None)
    planted.study.summary_path.write_text("{}")  # of another version: no class, but the table
    assert planted.state().note == ""


@pytest.mark.parametrize(("step", "epoch", "note"), [(4, 0, "NaN at step 4"), (None, 2, "NaN in its latents")])
def test_a_run_that_is_not_finite_shows_no_end(planted: Planted, step: int | None, epoch: int, note: str) -> None:
    """Its last heartbeat was before the NaN."""
    planted.run.trained_path.write_text("{}")
    planted.run.statistics_path.write_text("{}")
    plant.start(planted.run, job="4711_1", ago=900, beat=BEAT, outcome="done")
    assert (planted.state().loss, planted.state().radius) == (812.4, 16.25)
    config = planted.study.config()
    ae, vae = config.runs()
    lost = measured_run(vae, "nonfinite", nonfinite_step=step)
    write_model(planted.study.summary_path, summarise(config, [measured_run(ae), lost], read_reference()))
    state = planted.state()
    assert (state.kind, state.note, state.epoch, state.loss, state.radius) == ("done", note, epoch, None, None)


# Missing


def crashed(planted: Planted, status: str = "1", **start: object) -> None:
    plant.note(planted.train, 1, ("start", ""), ("crash", status), ("given-up", "1 tries after a crash are allowed"))
    plant.start(planted.run, job="4711_1", ago=1000, seen_ago=200, beat=BEAT | start.pop("beat", {}), **start)  # type: ignore[arg-type]


def test_a_crash_says_the_error_and_asks_no_accounting(planted: Planted, clients: Clients) -> None:
    crashed(planted, outcome="failed", error="train-00001.tfrecord: record 17 is damaged", log="one\ntwo\n")
    state = planted.state()
    assert (state.kind, state.note) == ("MISSING", "crashed: train-00001.tfrecord: record 17 is damaged")
    assert state.failure is not None
    assert (state.failure.stage, state.failure.node) == ("train", "node1")
    assert state.failure.last_words(1) == ["two"]
    assert [line.split()[0] for line in clients.lines()] == ["squeue"]


@pytest.mark.parametrize(
    ("error", "said", "advice"),
    [
        ("OOM when allocating tensor with shape[128,96]", "crashed: out of GPU memory: OOM", "tasks_per_gpu"),
        ("Unable to allocate 9.5 GiB for an array", "out of memory of 16 GB: Unable", "memory_gb"),
        (
            "TensorFlow sees 0 of 1 GPUs on g1: libcuda.so.1 is missing. Mend: ...",
            "crashed: TensorFlow sees 0 of 1 GPUs on g1: libcuda.so.1 is missing",
            "exclude",
        ),
        ("No PTX compilation provider is available", "crashed: XLA finds no usable ptxas: No PTX", "train-gpu"),
        ("libdevice not found at ./libdevice.10.bc", "crashed: XLA finds no libdevice: libdevice not", "train-gpu"),
        (
            "cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported display driver",
            "crashed: the node's driver was changed under way: cuInit",
            "staff",
        ),
        ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "crashed: the node's driver is too old: CUDA_ERROR", "staff"),
        ("CUDA_ERROR_NO_BINARY_FOR_GPU", "crashed: no code for this kind of GPU: CUDA_ERROR", "gpu_type"),
    ],
)
def test_errors_of_memory_and_gpus_say_what_to_change(planted: Planted, error: str, said: str, advice: str) -> None:
    crashed(planted, outcome="failed", error=error)
    assert planted.state().note.startswith(said)
    assert planted.state().failure is not None
    assert advice in planted.state().failure.advice  # type: ignore[union-attr]


def test_out_of_memory_by_the_accounting(planted: Planted, clients: Clients) -> None:
    crashed(planted, "137")
    clients.answers("sacct", account("4711_1", "OUT_OF_MEMORY", "16600000K"))
    state = planted.state()
    assert (state.kind, state.note) == ("MISSING", "out of memory (peak 15.8 GB, limit 16 GB)")
    assert state.failure is not None
    assert state.failure.advice == "memory_gb = 21 in [jobs.train] of the site file, then the same launch line"
    clients.answers("sacct", account("4711_1", "OUT_OF_MEMORY", f"{2 * 2**20}K"))  # sampled before the last allocation
    assert planted.state().note == "out of memory (peak 2.0 GB, limit 16 GB)"


def test_out_of_memory_where_slurm_says_no_more_than_killed(planted: Planted, clients: Clients) -> None:
    crashed(planted, "137")
    clients.answers("sacct", account("4711_1", "FAILED", f"{int(15.9 * 2**20)}K"))
    assert planted.state().note == "out of memory (peak 15.9 GB, limit 16 GB)"
    clients.answers("sacct", account("4711_1", "FAILED", f"{2 * 2**20}K"))
    assert planted.state().note == "killed (SIGKILL)"


@pytest.mark.parametrize(
    "words", ["slurmstepd: error: Detected 1 oom_kill event in StepId=4711.0", "Exceeded job memory limit"]
)
def test_out_of_memory_without_accounting(planted: Planted, clients: Clients, words: str) -> None:
    clients.fails("sacct", "Slurm accounting storage is disabled")
    crashed(planted, "137", beat={"peak_memory_gb": 15.2})
    assert planted.state().note == "out of memory (peak 15.2 GB, limit 16 GB)"
    beat = planted.run.attempts / "0001" / "heartbeat.json"
    beat.write_text(json.dumps(BEAT))
    assert planted.state().note == "killed (SIGKILL)"
    (planted.train.path / "4711_1_0_log.err").write_text(f"starting\n{words}\n")
    assert planted.state().note == "out of memory (peak not known, limit 16 GB)"


@pytest.mark.parametrize(
    ("state", "said", "advice"),
    [
        ("NODE_FAIL", "node lost (gpu3)", 'exclude = "gpu3"'),
        ("TIMEOUT", "timed out", "hours in [jobs.train]"),
        ("CANCELLED by 1000", "cancelled", "same launch line"),
        ("FAILED", "crashed (exit code 0:9)", "log"),
    ],
)
def test_what_only_accounting_knows(planted: Planted, clients: Clients, state: str, said: str, advice: str) -> None:
    plant.note(planted.train, 1, ("start", ""))
    plant.start(planted.run, job="4711_1", ago=HOUR, seen_ago=1000, beat=BEAT)
    clients.answers("sacct", account("4711_1", state))
    found = planted.state()
    assert (found.kind, found.note, found.node) == ("MISSING", said, "gpu3")
    assert found.failure is not None
    assert advice in found.failure.advice


def killed(planted: Planted) -> None:
    plant.start(planted.run, job="4711_1", ago=HOUR, seen_ago=1000, beat=BEAT)


def ended(planted: Planted) -> None:
    plant.note(planted.train, 1, ("start", ""), ("ended", ""))


def left(planted: Planted) -> None:
    plant.note(planted.train, 1, ("start", ""), ("left", ""))
    plant.start(planted.run, job="4711_1", ago=HOUR, seen_ago=1000, beat=BEAT, outcome="stopped")


def no_progress(planted: Planted) -> None:
    plant.note(planted.train, 1, ("start", ""), ("given-up", "no new checkpoint within the time limit"))
    plant.start(planted.run, job="4711_1", ago=HOUR, seen_ago=1000, beat=BEAT, outcome="stopped")


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (killed, "killed: its node was lost, or it was ended at once"),
        (ended, "ended by Slurm: cancelled or preempted"),
        (left, "stopped by the file 'stop'"),
        (no_progress, "given up: no new checkpoint within the time limit"),
        (lambda _: None, "ended before it could note anything"),
    ],
)
def test_endings_that_files_tell_without_accounting(
    planted: Planted, clients: Clients, ending: Callable[[Planted], None], said: str
) -> None:
    clients.fails("sacct", "Problem talking to the database: Connection refused")
    ending(planted)
    assert (planted.state().kind, planted.state().note) == ("MISSING", said)


@pytest.mark.parametrize("code", ["0:53", "53:0"])
def test_a_node_that_does_not_see_the_folder(planted: Planted, clients: Clients, code: str) -> None:
    clients.answers("sacct", account("4711_1", "FAILED").replace("0:9", code))
    assert planted.state().note == f"its node (gpu3) does not see {planted.train.path}, where its log lies"
    (failure,) = planted.whole().failures
    assert failure.advice.startswith('leave it out with exclude = "gpu3"')


def test_cancelled_while_pending(planted: Planted, clients: Clients) -> None:
    """sacct has one line for all elements that never started."""
    clients.answers("sacct", account("4711_[1]", "CANCELLED by 1000", node="None assigned"))
    assert planted.state().note == "cancelled"


def test_a_signal_that_is_no_kill_is_a_crash(planted: Planted) -> None:
    crashed(planted, "139")
    assert planted.state().note == "crashed (exit status 139)"


def test_of_a_pack_the_run_without_an_end_was_killed(planted: Planted) -> None:
    crashed(planted, "1")
    assert planted.state().note == "killed (SIGKILL)"


def test_a_full_disk_keeps_a_task_from_saying_how_it_ended(planted: Planted) -> None:
    crashed(planted, "1")
    (planted.run.attempts / "0001" / "log").write_text("OSError: [Errno 28] Error writing bytes to file\n")
    assert planted.state().note == "crashed: no space left on the disk"


def test_statistics_that_failed(planted: Planted) -> None:
    planted.run.trained_path.write_text("{}")
    plant.start(planted.run, "statistics", job="4712_1", outcome="failed", error="mu.npy is cut off")
    state = planted.state()
    assert (state.kind, state.note, state.is_trained) == ("MISSING", "statistics: crashed: mu.npy is cut off", True)


def test_a_run_that_is_in_no_array(planted: Planted) -> None:
    plant.batch(planted.study, "train-0002", [], "4714")
    planted.train.record_path.unlink()
    assert (planted.state().kind, planted.state().note) == ("MISSING", "not submitted")


def test_the_newest_array_counts(planted: Planted, clients: Clients) -> None:
    crashed(planted, outcome="failed", error="no")
    plant.batch(planted.study, "train-0002", [[RUN]], "4720", ago=10)
    clients.answers("squeue", pending("4720", "Priority"))
    assert (planted.state().kind, planted.state().note) == ("waiting", "Priority")


def test_an_array_that_was_not_accepted_does_not_hide_how_the_last_one_ended(planted: Planted) -> None:
    crashed(planted, outcome="failed", error="no")
    plant.batch(planted.study, "train-0002", [[RUN]], None, ago=10)
    assert planted.state().note == "crashed: no"


def test_out_of_memory_of_runs_that_share_it(planted: Planted) -> None:
    plant.batch(planted.study, "train-0002", [["ae-seed000", RUN]], "4720", ago=10, memory_gb=32.0)
    batch = BatchDir(planted.study.jobs / "train-0002")
    plant.note(batch, 0, ("start", ""), ("crash", "137"), ago=1)
    plant.start(planted.run, job="4720", ago=5, seen_ago=1, beat=BEAT | {"peak_memory_gb": 15.0})
    failure = planted.state().failure
    assert failure is not None
    assert failure.how == "out of memory (peak 15.0 GB, limit 16 GB for each of 2)"
    assert failure.advice == (
        "memory_gb = 21 in [jobs.train] of the site file, then the same launch line; or fewer tasks_per_gpu"
    )


def test_a_run_that_ends_well_while_the_queue_is_asked_is_not_missing(planted: Planted, clients: Clients) -> None:
    planted.run.trained_path.write_text("{}")
    plant.start(planted.run, "statistics", job="4712_1")
    clients._script("sacct", f'touch "{planted.run.statistics_path}"')
    assert planted.state().kind == "done"


def test_events_that_were_cut_off_are_passed_over(planted: Planted, clients: Clients) -> None:
    (planted.train.path / "1.events").write_text("17000\tnode1\tsta")
    clients.answers("squeue", pending("4711_1", "Priority"))
    assert planted.state().kind == "waiting"


# Sources that do not answer


def test_without_squeue_heartbeats_tell(planted: Planted, clients: Clients) -> None:
    clients.fails("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    plant.start(planted.run, job="4711_1", beat=BEAT)
    state = planted.whole()
    assert state.runs[1].kind == "training"
    assert state.sources == (
        "squeue down: states from heartbeats (squeue: slurm_load_jobs error: Unable to contact slurm controller"
        " (connect failure))"
    )


def test_without_squeue_and_heartbeats_accounting_tells(planted: Planted, clients: Clients) -> None:
    clients.fails("squeue", "down")
    clients.answers("sacct", "4711_[1-1%2]|PENDING|0:0|None assigned|0|0|00:00:00||\n")
    assert (planted.state().kind, planted.state().note) == ("unknown", "waiting, running or ended")
    for name, kind in (("PENDING", "waiting"), ("RUNNING", "starting"), ("TIMEOUT", "MISSING")):
        clients.answers("sacct", account("4711_1", name))
        assert planted.state().kind == kind


def test_nothing_answers(planted: Planted, clients: Clients) -> None:
    clients.hangs("squeue")
    clients.hangs("sacct")
    plant.start(planted.run, job="4711_1", ago=HOUR, seen_ago=1500, beat=BEAT)
    state = planted.whole(0.5)
    assert (state.runs[1].kind, state.runs[1].note) == ("unknown", "no sign of life for 25 min")
    assert state.sources is not None
    assert state.sources.startswith("squeue and accounting down: states from heartbeats (squeue did not answer within")
    assert state.sources.endswith("--patience 10 waits longer)")


def test_accounting_that_is_down_is_said_where_it_was_needed(planted: Planted, clients: Clients) -> None:
    clients.fails("sacct", "Problem talking to the database: Connection refused")
    assert planted.whole().sources == (
        "accounting down: states from squeue and heartbeats"
        " (sacct: Problem talking to the database: Connection refused)"
    )
    clients.answers("squeue", pending("4711_1", "Priority"))
    assert planted.whole().sources is None


# One machine


@pytest.fixture
def local(tmp_path: Path) -> Planted:
    """A study that was launched on one machine."""
    study = plant.study(tmp_path / "local", study_config([VAE]))
    study.jobs.mkdir()
    unused = BatchDir(study.jobs / "none")
    return Planted(study, study.run(RUN), unused, unused)


@pytest.fixture
def sleeper() -> object:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


HERE = socket.gethostname()


def launched(study: StudyDir, pid: int, host: str = HERE, started: str | None = None) -> None:
    study.launcher.write_text(f"{host} {pid} {started or process_start(pid)}\n")


def test_a_local_study_asks_nothing_of_slurm(local: Planted, clients: Clients) -> None:
    assert (local.state().kind, local.state().note) == ("MISSING", "not started")
    assert clients.lines() == []


def test_local_runs_wait_and_train_while_their_processes_live(local: Planted, sleeper: subprocess.Popen[bytes]) -> None:
    launched(local.study, sleeper.pid)
    assert local.state().kind == "waiting"
    plant.start(local.run, host=HERE, job="77", pid=sleeper.pid, ago=0, beat=BEAT | {"start_step": 0})
    assert (local.state().kind, local.state().node, local.state().seconds_left) == ("training", HERE, 3.0)
    assert local.state().note == ""
    sleeper.kill()
    sleeper.wait()
    assert (local.state().kind, local.state().note) == ("MISSING", "interrupted")


def test_a_local_task_that_was_killed_beside_its_launcher(local: Planted) -> None:
    launched(local.study, os.getppid())
    os.utime(local.study.launcher, (time.time() - 200,) * 2)
    plant.start(local.run, host=HERE, job="77", pid=4_000_000, ago=100, beat=BEAT)
    assert (local.state().kind, local.state().note) == ("MISSING", "killed")
    os.utime(local.study.launcher)  # launched again: it comes to it
    assert local.state().kind == "waiting"


def test_a_process_number_that_was_given_to_another(local: Planted, sleeper: subprocess.Popen[bytes]) -> None:
    plant.start(local.run, host=HERE, job="77", pid=sleeper.pid, ago=HOUR, seen_ago=1, beat=BEAT)
    assert local.state().note == "interrupted"


def test_a_local_run_that_failed_or_was_stopped(local: Planted) -> None:
    plant.start(local.run, host=HERE, job="77", beat=BEAT, outcome="stopped")
    assert (local.state().kind, local.state().note) == ("MISSING", "stopped at step 4")
    plant.start(local.run, host=HERE, job="78", beat=BEAT, outcome="failed", error="no image")
    assert (local.state().note, local.state().restarts) == ("crashed: no image", 1)


def test_a_study_that_another_machine_runs(local: Planted) -> None:
    launched(local.study, 7, "elsewhere", "7")
    assert (local.state().kind, local.state().note) == ("unknown", "waiting, if its launcher on elsewhere still runs")
    plant.start(local.run, host="elsewhere", job="77", beat=BEAT)
    assert local.state().kind == "training"
    plant.start(local.run, host="elsewhere", job="78", ago=HOUR, seen_ago=1500, beat=BEAT)
    assert (local.state().kind, local.state().note) == ("silent", "no sign of life for 25 min; look on elsewhere")


def test_a_study_from_slurm_that_goes_on_here(planted: Planted, sleeper: subprocess.Popen[bytes]) -> None:
    crashed(planted, outcome="failed", error="no")
    launched(planted.study, sleeper.pid)
    plant.start(planted.run, host=HERE, job="77", pid=sleeper.pid, ago=0, seen_ago=0, beat=BEAT)
    assert planted.state().kind == "training"


# The command


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = status.main(arguments)
    except SystemExit as exit_:  # the argument parser's own
        code = exit_.code if isinstance(exit_.code, int) else 1
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_the_table(planted: Planted, clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    clients.answers("squeue", running("4711_1") + pending("4713", "Dependency"))
    plant.start(planted.run, job="4711_1", beat=BEAT | {"steps_per_second": 0.01})
    plant.batch(planted.study, "aggregate-0001", [[""]], "4713")
    code, out, _ = told(capsys, str(planted.study.path))
    assert code == 0
    assert out.splitlines() == [
        "planted: 1 of 2 trained, 1 done; 1 training",
        "aggregate: waiting (Dependency)",
        "",
        "run               state     node   epoch  steps/s   loss  probe R    left",
        "ae-seed000        done      node1    2/2",
        "vae-tiny-seed000  training  gpu3     0/2     0.01  812.4    16.25  10 min",
    ]


def test_the_part_of_an_aggregate_that_runs(
    planted: Planted, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    clients.answers("squeue", running("4713"))
    plant.batch(planted.study, "aggregate-0001", [[""]], "4713")
    write_record(planted.study.heartbeat("aggregate"), {"part": "tests", "part_number": 2, "num_parts": 4})
    assert "aggregate: running (gpu3), tests (2 of 4)" in told(capsys, str(planted.study.path))[1]


def test_a_program_is_told_the_same(planted: Planted, clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    clients.answers("squeue", running("4711_1"))
    plant.start(planted.run, job="4711_1", beat=BEAT | {"steps_per_second": 0.01})
    code, out, _ = told(capsys, str(planted.study.path), "--json")
    value = json.loads(out)
    assert (code, value["counts"], value["failures"]) == (0, {"done": 1, "training": 1}, [])
    (run,) = [run for run in value["runs"] if run["run"] == RUN]
    assert (run["kind"], run["node"], run["radius"], run["seconds_left"]) == ("training", "gpu3", 16.25, 600)


def test_the_part_of_its_statistics(planted: Planted, clients: Clients) -> None:
    plant.marker(planted.run)
    clients.answers("squeue", running("4712_1"))
    plant.start(planted.run, "statistics", job="4712_1", beat={"part": "t-SNE", "part_number": 6, "num_parts": 6})
    assert (planted.state().kind, planted.state().note) == ("measuring", "t-SNE (6 of 6)")


def test_the_only_study_needs_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "say which study, by its folder or name. There is no study under runs." in told(capsys)[2]
    plant.study(tmp_path / "runs/first", study_config([AE]))
    code, out, _ = told(capsys)
    assert (code, out.splitlines()[0].partition(":")[0]) == (3, "first")
    plant.study(tmp_path / "runs/second", study_config([AE]))
    assert "say which study, by its folder or name. Studies under runs: first, second." in told(capsys)[2]


def test_the_end_of_a_study(planted: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    crashed(planted, outcome="failed", error="no image")
    code, out, _ = told(capsys, str(planted.study.path))
    assert code == 3
    assert out.splitlines()[0] == "planted: 1 of 2 trained, 1 done; 1 MISSING"
    assert out.splitlines()[-1] == "The same launch line submits the 1 missing. Why they are missing: --failures"
    planted.run.trained_path.write_text("{}")
    planted.run.statistics_path.write_text("{}")
    planted.study.summary_path.write_text("{}")
    code, out, _ = told(capsys, str(planted.study.path))
    assert (code, out.splitlines()[-1]) == (0, f"Report: {planted.study.report}")


def test_a_study_that_goes_on_has_not_ended_with_missing_runs(
    planted: Planted, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    crashed(planted, outcome="failed", error="no image")
    (planted.study.run("ae-seed000").statistics_path).unlink()
    clients.answers("squeue", pending("4712_0", "Priority"))
    code, out, _ = told(capsys, str(planted.study.path))
    assert (code, out.splitlines()[0]) == (0, "planted: 1 of 2 trained, 0 done; 1 MISSING")


def test_failures_in_one_list(planted: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    crashed(planted, outcome="failed", error="no image", log="\n".join(f"line {i}" for i in range(30)))
    aggregate = plant.batch(planted.study, "aggregate-0001", [[""]], "4713")
    plant.note(aggregate, 0, ("start", ""), ("crash", "1"), ("given-up", ""), node="cpu1")
    (aggregate.path / "4713_0_log.err").write_text("no room\n")
    code, out, _ = told(capsys, str(planted.study.path), "--failures")
    assert code == 3
    lines = out.splitlines()
    assert lines[0] == f"{RUN}: train on node1: crashed: no image"
    assert lines[1].startswith("  What to do: read its log")
    assert lines[2] == f"  {planted.run.attempts}/0001/log"
    assert lines[3:15] == [f"  | line {i}" for i in range(18, 30)]
    assert lines[16] == "aggregate-0001: aggregate on cpu1: crashed (exit status 1)"
    assert "  | no room" in lines
    assert lines[-1] == "2 in all. The same launch line submits what is missing."


def test_no_failures(planted: Planted, clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    clients.answers("squeue", pending("4711_1", "Priority"))
    assert told(capsys, str(planted.study.path), "--failures") == (
        0,
        "planted: no failures. Diverged runs are results.\n",
        "",
    )


def test_the_log_of_a_run(planted: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    study = str(planted.study.path)
    assert "has no log yet" in told(capsys, study, "--logs", "--run", RUN)[2]
    (planted.train.path / "4711_1_0_log.err").write_text("no such image\n")
    assert told(capsys, study, "--logs", "--run", RUN)[1].endswith("no such image\n")
    plant.start(planted.run, log="first\n")
    plant.start(planted.run, log="".join(f"line {i}\n" for i in range(500)))
    code, out, _ = told(capsys, study, "--logs", "--run", RUN)
    assert (code, out.splitlines()[0], len(out.splitlines())) == (0, f"{planted.run.attempts}/0002/log", 501)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--logs"], "name it with --run RUN"),
        (["--logs", "--run", "vae-tiny-seed0"], "did you mean 'vae-tiny-seed000'"),
        (["--failures", "--cancel"], "--failures and --cancel were asked for: one at a time"),
        (["--cancel", "--run", RUN], "scancel"),
    ],
)
def test_asked_wrongly(
    planted: Planted, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, _, err = told(capsys, str(planted.study.path), *arguments)
    assert code == 2
    assert message in err


def test_no_such_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capsys, str(tmp_path / "nothing"))
    assert (code, "is neither a study's folder nor a name under runs" in err) == (2, True)


def test_one_run_alone(planted: Planted, clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    clients.answers("squeue", pending("4711_1", "Priority"))
    out = told(capsys, str(planted.study.path), "--run", RUN)[1]
    assert "ae-seed000" not in out
    assert RUN in out


def test_a_study_whose_data_are_still_prepared(
    tmp_path: Path, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    study = StudyDir(tmp_path / "new")
    plant.batch(study, "prepare-0001", [[""]], "50")
    clients.answers("squeue", running("50"))
    assert told(capsys, str(study.path)) == (
        0,
        "new: 0 of 0 trained, 0 done\nprepare: running (gpu3)\nThe data are being prepared.\n",
        "",
    )


def test_watch_ends_with_the_study_and_repeats_only_what_has_changed(
    planted: Planted, clients: Clients, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clients.answers("squeue", pending("4711_1", "Priority"))

    def later(_: float) -> None:
        clients.answers("squeue", "")
        crashed(planted, outcome="failed", error="no image")
        planted.study.run("ae-seed000").trained_path.unlink(missing_ok=True)  # it was done: nobody looks at it again

    monkeypatch.setattr(status.time, "sleep", later)
    monkeypatch.setattr(states, "CLIENT_PAUSE", 0.0)
    code, out, _ = told(capsys, str(planted.study.path), "--watch")
    assert code == 3
    assert sum(line.startswith("ae-seed000") for line in out.splitlines()) == 1
    assert [line.split()[1] for line in out.splitlines() if line.startswith(RUN)] == ["waiting", "MISSING"]


def test_runs_that_are_done_are_read_once(planted: Planted) -> None:
    looks = Looks()
    read_study(planted.study, 5.0, looks)
    assert list(looks.finished) == ["ae-seed000"]
    planted.study.run("ae-seed000").trained_path.unlink()
    kinds = [read_study(planted.study, 5.0, known).runs[0].kind for known in (looks, None)]
    assert kinds == ["done", "MISSING"]


def test_slurm_is_asked_once_a_minute_and_files_in_between(
    planted: Planted, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it answers or not."""
    looks, now = Looks(), [1000.0]
    monkeypatch.setattr(states.time, "monotonic", lambda: now[0])
    clients.answers("squeue", running("4711_1"))
    assert read_study(planted.study, 5.0, looks).runs[1].kind == "starting"
    plant.start(planted.run, job="4711_1", ago=60, seen_ago=1, beat=BEAT)
    clients.fails("squeue", "busy")
    now[0] += 59
    assert read_study(planted.study, 5.0, looks).runs[1].kind == "training"
    assert [line.split()[0] for line in clients.lines()] == ["squeue"]
    now[0] += 1
    for _ in range(2):
        assert "squeue down" in str(read_study(planted.study, 5.0, looks).sources)
    assert [line.split()[0] for line in clients.lines()] == ["squeue", "squeue"]


@pytest.mark.parametrize(
    ("queue", "said", "code"),
    [
        (
            pending("4711_1", "launch failed requeued held") + pending("4713", "Dependency"),
            "1 element will not start by itself (launch failed requeued held): `scontrol release 4711_1`",
            3,
        ),
        (pending("4711_1", "BadConstraints"), "(BadConstraints): `scancel 4711_1`", 3),
        (pending("4711_1", "JobHeldUser") + running("4712_0"), "(JobHeldUser): `scontrol release 4711_1`", 0),
        (pending("4711_1", "Priority"), "", 0),
    ],
)
def test_what_will_not_start_by_itself(
    planted: Planted,
    clients: Clients,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    queue: str,
    said: str,
    code: int,
) -> None:
    """A watch ends where all else waits for it."""
    plant.batch(planted.study, "aggregate-0001", [[""]], "4713")
    clients.answers("squeue", queue)
    found, out, _ = told(capsys, str(planted.study.path))
    assert (found, said in out, "will not start" in out) == (code, True, said != "")
    if code == 3:
        monkeypatch.setattr(status.time, "sleep", lambda seconds: pytest.fail("it goes on") if seconds > 1 else None)
        assert told(capsys, str(planted.study.path), "--watch")[0] == 3


# Cancelling


def test_cancel_ends_the_arrays_of_this_study_alone(
    planted: Planted, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    clients.answers("squeue", running("4711_0") + pending("4711_1", "Priority") + running("9999_1") + running("47"))
    code, out, _ = told(capsys, str(planted.study.path), "--cancel")
    assert code == 0
    assert out.splitlines()[0] == "cancelled 4711 (train-0001): 1 pending, 1 running"
    assert clients.lines()[-1] == "scancel 4711"


def test_cancel_where_nothing_is_queued(planted: Planted, clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    clients.answers("squeue", running("9999_1"))
    code, out, _ = told(capsys, str(planted.study.path), "--cancel")
    assert (code, out) == (0, "Nothing to cancel: no element of planted is queued or running.\n")
    assert [line.split()[0] for line in clients.lines()] == ["squeue"]


def test_cancel_where_slurm_does_not_answer(
    planted: Planted, clients: Clients, capsys: pytest.CaptureFixture[str]
) -> None:
    clients.fails("squeue", "down")
    code, _, err = told(capsys, str(planted.study.path), "--cancel")
    assert code == 2
    assert "by hand: scancel 4711 4712" in err


def test_cancel_does_not_end_a_local_launcher(
    local: Planted, sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    launched(local.study, sleeper.pid)
    code, _, err = told(capsys, str(local.study.path), "--cancel")
    assert code == 2
    assert f"is run by process {sleeper.pid}" in err
    assert sleeper.poll() is None


# Words and width


def wide_state(num_runs: int = 40) -> StudyState:
    runs = [RunState(f"vae-tiny-seed{i:03d}", "waiting", "Priority", epochs=24) for i in range(num_runs)]
    long = "requeued x1, resumed at step 60, hash of the state matches"
    runs[-1] = RunState("vae-tiny-seed039", "training", long, "gpu1", 14, 24, 12.34, 812.4, 16.25, 1, 9000.0)
    return StudyState(StudyDir(Path("/runs/wide")), tuple(runs), (), None, (), True, True)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_terminal_gets_no_line_that_is_too_long(width: int) -> None:
    lines = status.status_lines(wide_state(), width)
    assert max(map(len, lines)) <= width
    table = " ".join(" ".join(lines).split())
    assert ("node" in lines[2]) == (width >= 80)
    assert "hash of the state matches" in table
    assert ("(no room for: restarts, node" in table) == (width < 80)


def test_a_low_terminal_shows_the_busiest_runs() -> None:
    lines = status.status_lines(wide_state(), 160, 12)
    assert len(lines) <= 12
    assert lines[3].startswith("vae-tiny-seed039  training")
    assert lines[-1] == "... 40 runs in all; the rest: `vaehpc status /runs/wide`"


def test_durations_and_numbers_to_ask_for() -> None:
    assert [duration(value) for value in (-1, 0, 45, 100, 5000, 9000, 200_000)] == [
        "0 s",
        "0 s",
        "45 s",
        "2 min",
        "83 min",
        "2.5 h",
        "2.3 d",
    ]
    assert [rounded_up(value) for value in (0.1, 0.25, 1.3, 3.9, 4.1, 20.8)] == [0.25, 0.25, 1.5, 4.0, 5.0, 21.0]


def test_whoever_reads_it_may_stop(planted: Planted) -> None:
    command = f"{sys.executable} -m vaehpc.status {planted.study.path} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode in (0, 3), done.stderr) == (True, "")


def test_status_needs_neither_tensorflow_nor_submitit() -> None:
    code = "import sys, vaehpc.status; print(*{'tensorflow', 'scipy', 'submitit', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


# The page


def test_html_shows_a_study_that_runs_and_leaves_a_finished_report(tmp_path, capsys):
    study = plant.study(tmp_path / "shown", plant.classed_config("shown", {"ae": ["regular"] * 2}))
    plant.start(study.run("ae-seed000"), beat=plant.BEAT)
    assert status.main([str(study.path), "--html"]) == 0
    assert is_live(study.report.read_text())
    assert f"Page: {study.report}" in capsys.readouterr().out.replace("\n", "")
    for run in ("ae-seed000", "ae-seed001"):
        plant.ended(study.run(run))
    study.report.write_text("<!doctype html><title>the report</title>")
    assert status.main([str(study.path), "--html"]) == 0
    assert study.report.read_text() == "<!doctype html><title>the report</title>"


def test_html_is_of_a_whole_study(tmp_path, capsys):
    study = plant.study(tmp_path / "shown", plant.classed_config("shown", {"ae": ["regular"]}))
    assert status.main([str(study.path), "--html", "--run", "ae-seed000"]) == 2
    assert "--html shows a whole study" in capsys.readouterr().err
