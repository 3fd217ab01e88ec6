"""Where `auto` runs a study: without Slurm, with its client alone, with a silent Slurm, with one that answers."""

from pathlib import Path

import pytest

from tests.slurm.clients import Clients
from vaehpc import launch
from vaehpc.command import UserError
from vaehpc.slurm import choice
from vaehpc.slurm.choice import chosen_site
from vaehpc.slurm.client import SlurmError, client

UNCONFIGURED = """\
scontrol: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
scontrol: error: fetch_config: DNS SRV lookup failed
scontrol: error: _establish_config_source: failed to fetch config
scontrol: fatal: Could not establish a configuration source"""
"""Slurm 22.05, installed and not set up."""
RETRYING = (
    "scontrol: error: s_p_parse_file: unable to status file /etc/slurm/slurm.conf: No such file or directory, retrying"
    " in 1sec up to 60sec"
)
"""Slurm 20.02."""


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    found = Clients(tmp_path / "bin")
    found.answers("sbatch", "")
    monkeypatch.setenv("PATH", found.path())
    monkeypatch.delenv("VAEHPC_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return found


def test_without_sbatch_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chosen_site(None, "auto", "")[1:] == ("local", "no sbatch on this machine")


def test_a_client_without_a_configuration_is_no_cluster(clients: Clients, capsys: pytest.CaptureFixture[str]) -> None:
    clients.fails("scontrol", UNCONFIGURED)
    assert launch.main(["--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "Preset demo on built-in faces, because no data are given, executor local: sbatch is on this machine, but"
        " Slurm's client finds no configuration; precision float32, for its trainings ask for no GPU."
    )


def test_an_older_client_tries_for_a_minute_and_says_why(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    clients._script("scontrol", f'echo "{RETRYING}" >&2; exec sleep 60')
    monkeypatch.setattr(choice, "configuration", lambda: client("scontrol", "show", "config", seconds=0.5))
    assert chosen_site(None, "auto", "")[1] == "local"


@pytest.mark.usefixtures("clients")
@pytest.mark.parametrize("said", ["scontrol did not answer within 10 s", "Unable to contact slurm controller"])
def test_a_slurm_that_is_silent_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    def silent() -> None:
        raise SlurmError(said)

    monkeypatch.setattr(choice, "configuration", silent)
    assert launch.main(["--seeds", "3", "--study", "a b", "--dry-run"]) == 2
    line = "python -m vaehpc.launch --seeds 3 --study 'a b' --dry-run"
    assert capsys.readouterr().err == (
        f"vaehpc: sbatch is on this machine, but Slurm does not answer: {said}. Give the line again later, or run"
        f" here:\n  {line}\n  {line} --executor local\n"
    )
    assert not Path("runs").exists()


def test_a_slurm_that_answers_is_used(clients: Clients) -> None:
    clients.answers("scontrol", "MaxArraySize = 1001")
    assert chosen_site(None, "auto", "")[1:] == ("slurm", "sbatch is on this machine")
    assert chosen_site(None, "local", "")[1:] == ("local", "")
    Path("site.toml").write_text("executor = 'slurm'")
    with pytest.raises(UserError, match="is for executor slurm"):
        chosen_site(Path("site.toml"), "local", "")
