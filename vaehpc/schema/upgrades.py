"""Stored records of older releases, lifted to what this one reads: the table is vaehpc/schema/README.md.

A record says the number of its schema; one without says nothing of 0.1.0's, which is number 1. A number grows with each
step below, and only with these: a field that is new and has a default, or one that goes, needs none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import pydantic_core

from vaehpc.schema.frozen import Frozen

Step = Callable[[dict[str, Any]], dict[str, Any]]

SCHEMA = "schema"
"""The key of a record's number."""
CHECKSUM = "crc32"
"""The key of the checksum of all that it says otherwise."""

ATTEMPT_SCHEMA = 1
"""Of start.json, heartbeat.json and exit.json of an attempt, which are no models: every key may be missing."""

PROCESSORS = re.compile(r"ryzen|epyc|xeon|core\(|cpu|processor|with radeon|with .* graphics", re.IGNORECASE)
GPUS = re.compile("nvidia|tesla|geforce|quadro|titan|grid|radeon|instinct", re.IGNORECASE)
"""Devices by their names, processors first: 'AMD Ryzen 7 7840U with Radeon Graphics' is one."""


class NewerError(ValueError):
    """A record was written by a later release, and its number is not known here."""


def guessed_kind(device: str) -> str:
    """Whether a device is a processor or a GPU, by its name alone."""
    return "gpu" if GPUS.search(device) and not PROCESSORS.search(device) else "cpu"


def _values_as_text(value: dict[str, Any]) -> str:
    """The plan's values as 0.1.0 wrote them down to hash them."""
    return pydantic_core.to_json(value["plan"]).decode()


def _study_has_text(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "plan_text": _values_as_text(value)}


def _run_has_hash(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "plan_sha256": hashlib.sha256(_values_as_text(value).encode()).hexdigest()}


def _kind_is_guessed(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "device_kind": guessed_kind(value["device"]), "device_kind_is_guessed": True}


def _switch_was_tensorflows(value: dict[str, Any]) -> dict[str, Any]:
    """TensorFlow has TF32 on, where the GPU has it, unless it is told."""
    has_it = value["device_kind"] == "gpu" and not (value.get("capability") or "8").startswith(("6.", "7."))
    return {**value, "tensor_float_32": has_it}


def _best_attribute_is_no_number(value: dict[str, Any]) -> dict[str, Any]:
    """A name stood among the numbers of how latent points lie."""

    def lifted_run(run: dict[str, Any]) -> dict[str, Any]:
        cloud = dict(run.get("cloud", {}))
        return {**run, "best_attribute": cloud.pop("best_attribute", None), "cloud": cloud}

    return {**value, "runs": {name: lifted_run(run) for name, run in value["runs"].items()}}


def _left_by_other_rules(value: dict[str, Any]) -> dict[str, Any]:
    """Onsets, their curves and tests were by other rules: they are gone until the study is summed up anew."""
    runs = {
        name: {**run, "onset_step": None, "onset_kind": None, "ever_diverged": None}
        for name, run in value["runs"].items()
    }
    return {**{key: of for key, of in value.items() if key != "onsets"}, "runs": runs, "contrasts": []}


def _forks_have_endings(value: dict[str, Any]) -> dict[str, Any]:
    """Forks that were not finite were counted as jumps."""

    def lifted_fork(fork: dict[str, Any]) -> dict[str, Any]:
        lost = fork.get("nonfinite_step") is not None
        jumped = fork.pop("jumped")
        return {**fork, "ending": "stayed" if not jumped else "nonfinite" if lost else "jump"}

    def lifted_variant(variant: dict[str, Any]) -> dict[str, Any]:
        forks = [lifted_fork(dict(fork)) for fork in variant["forks"]]
        counts = {f"num_{kind}": sum(fork["ending"] == ending for fork in forks) for kind, ending in ENDINGS.items()}
        return {**variant, **counts, "forks": forks}

    return {**value, "variants": [lifted_variant(variant) for variant in value["variants"]]}


ENDINGS = {"jumps": "jump", "nonfinite": "nonfinite"}

UPGRADES: dict[str, tuple[Step, ...]] = {
    "StudyConfig": (_study_has_text,),
    "RunConfig": (_run_has_hash,),
    "TrainedRecord": (_kind_is_guessed, _switch_was_tensorflows),
    "ReplayResult": (_forks_have_endings,),
    "StudySummary": (_best_attribute_is_no_number, _left_by_other_rules),
}
"""By model: what lifts its records from number 1 to 2, from 2 to 3, and so on."""


def schema_number(model: type[Frozen]) -> int:
    """Of the records of this model that this release writes."""
    return 1 + len(UPGRADES.get(model.__name__, ()))


def lifted(model: type[Frozen], value: dict[str, Any]) -> dict[str, Any]:
    """A stored record as this release would have written it, without its number.

    Raises:
        NewerError: its number is not known.
    """
    number, known = value.get(SCHEMA, 1), schema_number(model)
    if not isinstance(number, int) or not 1 <= number <= known:
        raise NewerError(f"it has schema {number} of {model.__name__}, and this release knows 1 to {known}")
    value = {key: of for key, of in value.items() if key != SCHEMA}
    for step in UPGRADES.get(model.__name__, ())[number - 1 :]:
        value = step(value)
    return value
