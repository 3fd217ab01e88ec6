"""`python -m vaehpc.tasks.stability RUN`: the stability of each state that a run has kept, into its explanation."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from vaehpc.command import UserError, exit_code
from vaehpc.schema.results import RunStability, Stability
from vaehpc.study.files import RunDir, step_of, write_model
from vaehpc.tasks.device import configure_tensorflow
from vaehpc.training.checkpoint import restore_checkpoint
from vaehpc.training.fit import build_optimizer
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.pipeline import load_training_images
from vaehpc.training.stability import measured_stability

logger = logging.getLogger(__name__)


def run(directory: str) -> None:
    """Measure every checkpoint and snapshot of the run in this directory, in float32; write explanation/stability.json.

    Raises:
        UserError: the data set is missing, damaged or another one; the run has no state to measure.
    """
    run_dir = RunDir(Path(directory))
    states = tuple(measured(run_dir))
    if not states:
        raise UserError(f"{run_dir.name} keeps no state after its first step: there is nothing to measure.")
    run_dir.explanation.mkdir(exist_ok=True)
    write_model(run_dir.stability_path, RunStability(run=run_dir.name, states=states))


def measured(run_dir: RunDir) -> Iterator[Stability]:
    """The states in the order of their steps; one that is damaged is said in the log and left out."""
    asked = run_dir.config()
    single = asked.arm.model_copy(update={"train": asked.arm.train.model_copy(update={"precision": "float32"})})
    configure_tensorflow(single.train)
    images = load_training_images(asked)
    net = build_net(single, asked.data.image_size, layer_seeds(asked.key("initialisation")))
    optimizer = build_optimizer(asked.arm.train, net)
    stability = measured_stability(asked, images, net, optimizer)
    for path, state in kept_states(run_dir):
        try:
            progress = restore_checkpoint(path, [*net.variables, *optimizer.variables], asked.identity)
        except UserError as error:
            logger.warning("%s is damaged and left out: %s", path, error)
            continue
        if progress.step < asked.num_steps and (found := stability(progress.step, state)) is not None:
            yield found


def kept_states(run_dir: RunDir) -> list[tuple[Path, str]]:
    """Directories of checkpoints and snapshots by their steps, and what they are; of one step the checkpoint."""
    found = {step: (path, "checkpoint") for path in run_dir.checkpoint_dirs() if (step := step_of(path)) is not None}
    for number, (path, trigger) in enumerate(zip(run_dir.trigger_dirs(), run_dir.trigger_records(), strict=True), 1):
        found.setdefault(trigger.snapshot_step, (path / "snapshot", f"snapshot before trigger {number}"))
    return [found[step] for step in sorted(found)]


def main() -> int:
    """Exit codes as those of commands."""
    logging.basicConfig(format="%(message)s")

    def work() -> int:
        run(sys.argv[1])
        return 0

    return exit_code(work, "interrupted")


if __name__ == "__main__":
    sys.exit(main())
