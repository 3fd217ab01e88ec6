"""The README's commands are ones that the programs take, and its pictures and links exist."""

import re
import shlex
from pathlib import Path

import pytest
import tyro

from vaehpc import __version__, doctor, explain, plan, prepare, report, status
from vaehpc.launch import Launch, parsed
from vaehpc.replay import Replay

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OTHERS = {
    "vaehpc.prepare": prepare.Arguments,
    "vaehpc.replay": Replay,
    "vaehpc.explain": explain.Arguments,
    "vaehpc.status": status.Arguments,
    "vaehpc.report": report.Arguments,
    "vaehpc.doctor": doctor.Doctor,
    "vaehpc.plan": plan.Arguments,
}
COMMANDS = sorted(set(re.findall(r"python -m vaehpc\.\w+[^`\n]*", README)))


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")  # no Slurm, whatever this machine has
    _, _, module, *arguments = shlex.split(command)
    if module == "vaehpc.launch":
        assert isinstance(parsed(arguments), Launch)
    else:
        tyro.cli(OTHERS[module], args=arguments)


def test_commands_were_found() -> None:
    assert len(COMMANDS) >= 5


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    asked = set(re.findall(r"^make ([a-z-]+)$", README, re.M)) | set(re.findall(r"`make ([a-z-]+)`", README))
    assert {"demo", "test", "lint", "check-long"} <= asked
    assert [target for target in asked if not re.search(rf"^{target}:", makefile, re.M)] == []


def test_links_and_pictures_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_changelog_and_citation_are_of_this_version() -> None:
    changes = re.findall(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text()
    version, date = changes[0]
    assert version == __version__
    assert f"\nversion: {version}\ndate-released: {date}\n" in citation
