"""`vaehpc doctor --gpu`: a node proves on its device, point by point, that trainings on it are right and fast."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field

from vaehpc.checks.machine import gpu_finding
from vaehpc.checks.node import COMBINATIONS, FailedError, Node, Numbers, Work, required
from vaehpc.command import UserError
from vaehpc.local.sharing import MPS, multi_process_service, timed_together
from vaehpc.machine.hardware import NEEDED_GPUS, gpu_name, seen_by_task
from vaehpc.machine.processes import processors
from vaehpc.machine.variables import MPS_PIPES
from vaehpc.schema.results import DeviceKind
from vaehpc.study.files import StudyDir, step_of
from vaehpc.study.study import create_study

NOT_MEANT = "it takes a GPU, and --device cpu means the processor"
LEAST_IMAGES_PER_SECOND = 1422
"""The article's, with its net on its GPU."""
ALLOWED_DIFFERENCE = 1e-4
"""Between losses of a GPU in float32 and of a processor, relative."""
NUM_COMPARED = 20
"""Steps whose losses are compared with a processor's."""
NUM_PACKED = 4
"""Runs that share the GPU."""


@dataclass(frozen=True)
class Outcome:
    """What is found of a point."""

    ok: bool | None
    """None: it, or a part of it, was left out."""
    said: str
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """A line of the proof."""

    number: int
    name: str
    ok: bool | None
    """None: it, or a part of it, was left out."""
    said: str
    numbers: Numbers
    seconds: float


def device(node: Node) -> Outcome:
    """Model, compute capability, driver, MIG and MPS."""
    if node.kind == "cpu":
        return Outcome(None, NOT_MEANT)
    report = node.machine.tensorflow
    assert report is not None
    finding = gpu_finding(node.machine, report, node.num_asked, "GPU")
    name = gpu_name()
    mig = "a part of a GPU (MIG)" if "MIG" in name else "a whole GPU"
    there = shutil.which(MPS) is not None
    mps = "MPS runs" if MPS_PIPES in os.environ else "MPS is installed" if there else f"no MPS: {MPS} is not installed"
    numbers = {
        "gpus": list(report.gpus),
        "capabilities": list(report.capabilities),
        "driver": node.machine.driver,
        "name": name,
        "mig": "MIG" in name,
        "mps": there or MPS_PIPES in os.environ,
    }
    capability = f"compute capability {node.capability or 'unknown'}, driver {node.machine.driver or 'unknown'}"
    said = f"{finding.found}; {capability}; {mig}; {mps}" + (f". {finding.remedy}" if finding.remedy else "")
    return Outcome(finding.ok, said, numbers)


def libraries(node: Node) -> Outcome:
    """CUDA's libraries, and what XLA compiles with."""
    if node.kind == "cpu":
        return Outcome(None, NOT_MEANT)
    found = node.alone(node.work("libraries"))
    loaded, tools = found["loaded"], found["compiles_with"]
    missing = [tool for tool, path in tools.items() if path is None]
    folders = sorted(set(loaded.values()))
    said = f"{len(loaded)} libraries from {', '.join(folders) or 'nowhere'}; " + (
        f"no {' and no '.join(missing)}" if missing else ", ".join(f"{tool} {path}" for tool, path in tools.items())
    )
    return Outcome(not missing and bool(loaded), said, found)


def kernels(node: Node) -> Outcome:
    """As many GPUs as the job asked for, and one operation of each kind in each type."""
    found = node.alone(node.work("kernels"))
    seen = len(node.machine.tensorflow.gpus) if node.kind == "gpu" and node.machine.tensorflow else 0
    asked = node.num_asked if node.kind == "gpu" else 0
    number, wrong = found["operations"], found["wrong"]
    of_gpus = f"{seen} of {asked} GPUs; " if node.kind == "gpu" else ""
    said = f"{of_gpus}{number - len(wrong)} of {number} operations are right" + "".join(f"; {each}" for each in wrong)
    return Outcome(not wrong and seen >= asked, said, found | {"gpus_asked": asked, "gpus_seen": seen})


def placement(node: Node) -> Outcome:
    """Where a block computes, and what it copies between host and device."""
    numbers = {}
    wrong, said = list[str](), list[str]()
    for name in ("bfloat16 resident", "bfloat16 from the host"):
        run, _, resident = node.training(name if node.left_out(name) is None else node.usual)
        found = numbers[name] = node.alone(node.work("placed", run, resident))
        wrong += [f"{name}: no kernel for {each}" for each in found["no_kernel"]]
        wrong += [f"{name}: {each} crosses in every step" for each in found["in_loop"]]
        copied = f"{found['bytes_to_device']:,} bytes to the device and {found['bytes_to_host']:,} back"
        said.append(f"{name}: {found['operations']} operations, {copied} a step")
    return Outcome(not wrong, "; ".join(wrong or said), numbers)


def compiling(node: Node) -> Outcome:
    """Seconds to compile, and that a second process takes the kept programs."""

    def judged(name: str) -> Outcome:
        first, second = required([node.first[name]])[0], node.second(name)
        numbers = {
            "seconds_to_compile": first["seconds_to_compile"],
            "seconds_to_load": second["seconds_to_load"],
            "programs": first["programs"],
            "programs_after": second["programs"],
        }
        took = f"{first['seconds_to_compile']:.1f} s, kept {second['seconds_to_load']:.1f} s"
        if not first["programs"]:
            return Outcome(False, f"{took}: no program was kept", numbers)
        if second["programs"] > first["programs"]:
            return Outcome(False, f"{took}: compiled again although it was kept", numbers)
        return Outcome(True, took, numbers)

    return _each(node, judged)


def hashes(node: Node) -> Outcome:
    """The same bits however a training is cut into blocks and starts."""

    def judged(name: str) -> Outcome:
        first = required([node.first[name]])[0]["hash"]
        found: dict[str, str] = node.second(name)["hashes"]
        other = [way for way, value in found.items() if value != first]
        numbers = {"first": first, **found}
        if not COMBINATIONS[name].deterministic:
            return Outcome(True, f"{'other bits' if other else 'the same bits'} (not promised)", numbers)
        if other:
            return Outcome(False, f"OTHER bits {', '.join(other)}", numbers)
        return Outcome(True, f"the same bits in {1 + len(found)} trainings of {node.size.num_steps} steps", numbers)

    return _each(node, judged)


def packed(node: Node) -> Outcome:
    """Several runs at once under MPS have the bits of one alone."""
    if node.kind == "cpu":
        return Outcome(None, NOT_MEANT)
    with multi_process_service([node.gpu or "0"]):
        is_served = MPS_PIPES in os.environ
        name, other = side_by_side(node, NUM_PACKED)
    numbers = {"runs": NUM_PACKED, "others": other, "mps": is_served}
    said = f"{NUM_PACKED - other} of {NUM_PACKED} runs at once, {name}, have the bits of one alone"
    if not is_served:
        said += f"; left out: the same under MPS, for {MPS} is not installed or did not start"
    return Outcome(False if other else True if is_served else None, said, numbers)


def side_by_side(node: Node, number: int) -> tuple[str, int]:
    """The combination that so many runs have been trained in at once, and how many have other bits than one alone."""
    name = node.usual
    alone = required([node.first[name]])[0]["hash"]
    work = node.work("training_beside", *node.training(name), at_once=number, waits=True)
    found = required(node.together([work] * number))
    return name, sum(each["hash"] != alone for each in found)


def against_cpu(node: Node) -> Outcome:
    """Losses of the first steps against a processor's in true float32."""
    num_steps = min(NUM_COMPARED, node.size.num_steps)
    work = Work(
        "plain_training",
        (node.run("float32", compiled=False), num_steps),
        {**os.environ, **seen_by_task("")},
    )
    expected = node.alone(work)["losses"]

    def judged(name: str) -> Outcome:
        losses = required([node.first[name]])[0]["losses"][:num_steps]
        ratios = [abs(loss / wanted - 1) for loss, wanted in zip(losses, expected, strict=True)]
        largest = math.nan if any(map(math.isnan, ratios)) else max(ratios)
        ok = COMBINATIONS[name].precision != "float32" or largest < ALLOWED_DIFFERENCE
        return Outcome(ok, f"{largest:.1e}", {"largest_difference": largest})

    found = _each(node, judged)
    return Outcome(found.ok, f"losses of {num_steps} steps, relative: {found.said}", found.numbers)


def speed(node: Node) -> Outcome:
    """Steps and images a second."""

    def judged(name: str) -> Outcome:
        found = node.second(name)
        rate = found["images_per_second"]
        numbers: Numbers = {
            key: found[key] for key in ("steps_per_second", "images_per_second", "bytes_at_most") if key in found
        }
        numbers["resident"] = required([node.first[name]])[0]["resident"]
        if node.kind == "gpu" and rate < LEAST_IMAGES_PER_SECOND:
            slower = f"{rate:,.0f}, slower than the article's {LEAST_IMAGES_PER_SECOND:,}"
            return Outcome(False, slower, numbers)
        no_room = COMBINATIONS[name].resident and not numbers["resident"]
        return Outcome(True, f"{rate:,.0f}" + (" (from the host: no room)" if no_room else ""), numbers)

    found = _each(node, judged)
    return Outcome(found.ok, f"images/s: {found.said}", found.numbers)


def shares(node: Node) -> Outcome:
    """How near the steps come to what the device can multiply and move."""

    def judged(name: str) -> Outcome:
        steps = node.second(name)["steps_per_second"]
        work = node.work("rates", node.run(COMBINATIONS[name].precision), node.size.side, node.size.num_bytes)
        found = node.alone(work)
        of_products = found["flop_of_step"] * steps / found["flop_per_second"]
        of_memory = found["bytes_of_step"] * steps / found["bytes_per_second"]
        numbers = found | {"share_of_products": of_products, "share_of_bandwidth": of_memory}
        measured = f"{found['flop_per_second'] / 1e12:.3g} TFLOP/s, {found['bytes_per_second'] / 1e9:.3g} GB/s"
        return Outcome(True, f"{of_products:.0%} and {of_memory:.0%} of {measured}", numbers)

    names = [name for name, of in COMBINATIONS.items() if of.resident and of.deterministic]
    return _each(node, judged, names)


def epochs_end(node: Node) -> Outcome:
    """What is done besides the steps, as shares of an epoch."""
    name = node.usual
    run, _, resident = node.training(name)
    epoch = math.ceil(node.size.epoch_images / run.arm.train.batch_size) / node.second(name)["steps_per_second"]
    (folder := node.folder / "ends").mkdir()
    found = node.alone(node.work("epochs_end", run, str(folder), resident))
    parts = {part: found[f"seconds_of_{part}"] / epoch for part in ("probe", "measurement", "checkpoint")}
    parts["encoding"] = found["seconds_of_encoding_an_image"] * node.size.epoch_images / epoch
    said = ", ".join(f"{part} {share:.2%}" for part, share in parts.items())
    numbers = found | {"seconds_of_epoch": epoch, "shares": parts}
    return Outcome(True, f"of an epoch of {node.size.epoch_images:,} images ({epoch:.3g} s): {said}", numbers)


def sharing(node: Node) -> Outcome:
    """Steps a second of all runs together, by how many there are."""
    node.require_device()
    (run,) = node.study(COMBINATIONS[node.usual].precision).runs()
    study, found, reason = StudyDir(node.folder / "sharing"), dict[int, float](), ""
    most = 8 if node.kind == "gpu" else min(8, processors())
    with multi_process_service([node.gpu or "0"]) if node.kind == "gpu" else nullcontext():
        served = MPS_PIPES in os.environ
        for number in (1, 2, 4, 8)[: most.bit_length()]:
            try:
                timings = timed_together(run, node.size.seconds, [node.gpu] * number, study)
            except Exception as error:  # so many are too many
                if number == 1:
                    raise
                reason = f"; {number} at once: {str(error).splitlines()[0]}"
                break
            found[number] = sum(1 / timing.step_seconds for timing in timings)
    rates = ", ".join(f"{number}: {rate:.3g}" for number, rate in found.items())
    where = (" under MPS" if served else " without MPS") if node.kind == "gpu" else ""
    said = f"steps/s of all runs together{where}: {rates}{reason}"
    return Outcome(True, said, {"steps_per_second": found, "mps": served})


def mishaps(node: Node) -> Outcome:
    """A run out of memory spares others, a stop leaves a checkpoint, a hidden GPU is refused."""
    parts = [_out_of_memory(node), _stop(node), _hidden(node)]
    ok = False if any(part.ok is False for part in parts) else None if any(part.ok is None for part in parts) else True
    numbers = {key: value for part in parts for key, value in part.numbers.items()}
    return Outcome(ok, "; ".join(part.said for part in parts), numbers)


def _out_of_memory(node: Node) -> Outcome:
    name = node.usual
    alone = required([node.first[name]])[0]["hash"]
    works = [node.work("training_beside", *node.training(name), at_once=2, waits=True)]
    works.append(node.work("without_memory", at_once=2, waits=True))
    trained, hungry = required(node.together(works))
    numbers = {"hash_beside_it": trained["hash"], "hash_alone": alone, "said": hungry["said"]}
    spared = trained["hash"] == alone
    of_other = "had the bits of one alone" if spared else "had OTHER bits than one alone"
    return Outcome(spared, f"a run beside one that had no memory {of_other}", numbers)


def _stop(node: Node) -> Outcome:
    study = StudyDir(node.folder / "stopped")
    config = node.study(COMBINATIONS[node.usual].precision)
    create_study(study, config)
    (run,) = config.runs()
    found = study.run(run.name)
    found.stop.touch()
    node.alone(node.work("trained", str(found.path)))
    steps = [step for path in found.checkpoint_dirs() if (step := step_of(path))]
    if found.trained_path.exists() or not steps:
        return Outcome(False, "a stop left NO checkpoint")
    found.stop.unlink()
    node.alone(node.work("trained", str(found.path)))
    numbers = {"stopped_at": steps[-1], "trained_to": found.trained().step}
    whole = numbers["trained_to"] == run.num_steps
    went_on = f"the next start went on to step {numbers['trained_to']} of {run.num_steps}"
    return Outcome(whole, f"a stop left a checkpoint at step {steps[-1]}, {went_on}", numbers)


def _hidden(node: Node) -> Outcome:
    if node.kind == "cpu":
        return Outcome(None, f"left out: a hidden GPU, for {NOT_MEANT}")
    hidden = {**os.environ, **seen_by_task(""), NEEDED_GPUS: "1"}
    (found,) = node.together([Work("plain_training", (node.run("float32"), 1), hidden)])
    if isinstance(found, FailedError) and "TensorFlow sees 0 of 1 GPUs" in str(found):
        return Outcome(True, "a training whose GPU is hidden is refused", {"refusal": str(found)})
    return Outcome(False, f"a training whose GPU is hidden is NOT refused: {found}")


def _each(node: Node, judged: Callable[[str], Outcome], names: Sequence[str] | None = None) -> Outcome:
    """A point of every combination: one that fails does not stop the others."""
    outcomes = dict[str, Outcome]()
    for name in names or COMBINATIONS:
        try:
            reason = node.left_out(name)
            outcomes[name] = judged(name) if reason is None else Outcome(None, "left out, no units for it")
        except FailedError as error:
            outcomes[name] = Outcome(False, str(error))
    ok = not any(outcome.ok is False for outcome in outcomes.values())
    by_said = {
        outcome.said: [name for name in outcomes if outcomes[name].said == outcome.said]
        for outcome in outcomes.values()
    }
    said = "; ".join(f"{', '.join(alike)}: {said}" for said, alike in by_said.items())
    return Outcome(ok, said, {name: outcome.numbers for name, outcome in outcomes.items()})


POINTS: Mapping[int, tuple[str, Callable[[Node], Outcome]]] = dict(
    enumerate(
        [
            ("GPU", device),
            ("libraries", libraries),
            ("operations", kernels),
            ("placement", placement),
            ("compiling", compiling),
            ("the same bits", hashes),
            ("packed runs", packed),
            ("against the CPU", against_cpu),
            ("speed", speed),
            ("share of the device", shares),
            ("besides steps", epochs_end),
            ("runs at once", sharing),
            ("mishaps", mishaps),
        ],
        start=1,
    )
)


def proven(node: Node, numbers: Sequence[int]) -> Iterator[Point]:
    """These points, each as soon as it is known. One that fails is wrong and does not stop the others."""
    for number in numbers:
        name, point = POINTS[number]
        begun = time.monotonic()
        try:
            outcome = point(node)
        except Exception as error:  # whatever it is: the others may tell why
            kind = "" if isinstance(error, (FailedError, UserError)) else f"{type(error).__name__}: "
            outcome = Outcome(False, f"{kind}{str(error).splitlines()[0] if str(error) else ''}")
        yield Point(number, name, outcome.ok, outcome.said, outcome.numbers, time.monotonic() - begun)


def asked_points(asked: str | None) -> list[int]:
    """'4,8' as numbers of points; None: all.

    Raises:
        UserError: one of them is none.
    """
    words = [str(number) for number in POINTS] if asked is None else [word.strip() for word in asked.split(",")]
    if unknown := [word for word in words if word not in map(str, POINTS)]:
        known = ", ".join(f"{number} {name}" for number, (name, _) in POINTS.items())
        raise UserError(f"--only {asked}: '{unknown[0]}' is no point. Points, with commas between them: {known}")
    return sorted({int(word) for word in words})


def as_json(device: DeviceKind, points: Sequence[Point]) -> str:
    """All that was found, for a program."""
    return json.dumps({"device": device, "points": [asdict(point) for point in points]}, indent=1) + "\n"
