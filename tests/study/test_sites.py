"""Sites: where jobs run, and with which resources there."""

from pathlib import Path
from typing import get_args

import pytest

from vaehpc.command import UserError
from vaehpc.schema.site import JobName
from vaehpc.study.sites import built_in_site, job_config, read_site, resolved


def refused(tmp_path: Path, text: str) -> str:
    """The message for a site's file with this text."""
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(UserError) as error:
        read_site(tmp_path / "site.toml")
    return str(error.value)


def test_shipped_sites_are_valid() -> None:
    assert built_in_site("local").executor == "local"
    assert built_in_site("slurm").executor == "slurm"


def test_a_site_gives_a_job_other_resources(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('executor = "slurm"\n[jobs.train]\nhours = 0.5\n')
    jobs = resolved(read_site(tmp_path / "site.toml")).jobs
    assert jobs["train"] == job_config("train").model_copy(update={"hours": 0.5})
    assert jobs["statistics"] == job_config("statistics")
    assert set(jobs) == {"prepare", "launch", "train", "statistics", "aggregate", "verdict"}


@pytest.mark.parametrize("name", [*get_args(JobName), "visit"])
def test_declarations_are_valid_and_their_entry_points_exist(name: str) -> None:
    module, _, function = job_config(name).entry_point.partition(":")
    source = Path(__file__).parents[2] / f"{module.replace('.', '/')}.py"
    assert f"\ndef {function}(directory: str) -> None:" in source.read_text()


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    assert "did you mean 'gpu_partition'?" in refused(tmp_path, 'executor = "slurm"\n[slurm]\ngpu_partitoin = "gpu"')
    assert "did you mean 'slurm'?" in refused(tmp_path, 'executor = "slurm"\n[slrum]\naccount = "a"')
    assert "did you mean 'hours'?" in refused(tmp_path, 'executor = "slurm"\n[jobs.train]\nhour = 3')
    assert "jobs.trian" in refused(tmp_path, 'executor = "slurm"\n[jobs.trian]\nhours = 3')
    assert "slurm.options.0 = 'nice=100' is not allowed" in refused(
        tmp_path, 'executor = "slurm"\n[slurm]\noptions = ["nice=100"]'
    )
    assert "--comment is the suite's own" in refused(
        tmp_path, 'executor = "slurm"\n[slurm]\noptions = ["--nice=5", "--comment=mine"]'
    )
    container = 'executor = "slurm"\n[container]\n'
    assert "did you mean 'runtime'?" in refused(tmp_path, f'{container}runtme = "apptainer"')
    assert "container.runtime = 'docker' is not allowed" in refused(tmp_path, f'{container}runtime = "docker"')
    without = refused(tmp_path, f'{container}runtime = "apptainer"')
    assert without.endswith("site.toml: runtime 'apptainer' needs an image")
    relative = refused(tmp_path, f'{container}runtime = "apptainer"\nimage = "train.sif"')
    assert "'train.sif' depends on the folder that somebody is in: give the whole path" in relative
    assert "container.binds.0 = 'scratch' is not allowed" in refused(tmp_path, f'{container}binds = ["scratch"]')
    both = f'{container}runtime = "podman"\nimage = "a"\n[slurm]\npython = "python3"'
    assert "[slurm] python and [container] both say" in refused(tmp_path, both)
    injected = 'account = "a\\n#SBATCH --uid=0"'
    assert "slurm.account = 'a\\n#SBATCH --uid=0' is not allowed: it must be one line of plain text" in refused(
        tmp_path, f'executor = "slurm"\n[slurm]\n{injected}'
    )
    for table in ('environment]\n"A B" = "1"', 'environment]\nA = "1\\n2"', 'slurm]\noptions = ["--nice=1\\n2"]'):
        assert "is not allowed" in refused(tmp_path, f'executor = "slurm"\n[{table}')
    for value in ("inf", "nan", "1e30", "-1"):
        assert "jobs.train.hours" in refused(tmp_path, f'executor = "slurm"\n[jobs.train]\nhours = {value}')
    assert "executor" in refused(tmp_path, 'executor = "pbs"')
    assert "executor" in refused(tmp_path, "")
    assert "is not TOML" in refused(tmp_path, "executor = slurm")
    with pytest.raises(UserError, match="No such file"):
        read_site(tmp_path / "none.toml")
