"""What tasks read of their environment, and what crosses a container's border."""

import ast
import re
from pathlib import Path

import vaehpc
from vaehpc.images.workers import ENVIRONMENT
from vaehpc.machine.variables import READ_ON_NODES
from vaehpc.schema.site import SiteConfig
from vaehpc.slurm.containers import environment_lines, python_command
from vaehpc.study.sites import resolved

PACKAGE = Path(vaehpc.__file__).parent
ON_NODES = ("__init__.py", "local", "machine", "study", "images", "stats", "training", "tasks")
SET_BY_THE_SUITE = {
    *("VAEHPC_PRELOADED", "VAEHPC_RUNS_ON_GPU", "TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL", "TF_CPP_VMODULE"),
    *ENVIRONMENT,
}
"""For processes that it starts itself, in the same container."""
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def named(path: Path) -> set[str]:
    """Strings that look like names of variables, in a module that has to do with the environment."""
    text = path.read_text()
    if "environ" not in text and path.name != "variables.py":
        return set()
    strings = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return {value for value in strings if isinstance(value, str) and VARIABLE.fullmatch(value)}


def test_all_that_tasks_read_is_declared() -> None:
    files = [file for name in ON_NODES for file in [PACKAGE / name, *(PACKAGE / name).rglob("*.py")] if file.is_file()]
    found = set[str]().union(*map(named, files)) - SET_BY_THE_SUITE
    assert found - set(READ_ON_NODES) == set()


def test_all_that_is_declared_crosses_the_border_of_a_container() -> None:
    for runtime in ("apptainer", "singularity", "podman"):
        chosen = {"executor": "slurm", "container": {"runtime": runtime, "image": "/x.sif"}}
        site = resolved(SiteConfig.model_validate(chosen))
        told = "\n".join([*environment_lines(site), *python_command(site, "train", 1)])
        assert [name for name in READ_ON_NODES if not re.search(rf"\b{name}\b", told)] == []
