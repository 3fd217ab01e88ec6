"""The commands of README and of its pages are ones that the programs take, and their pictures and links exist."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import tyro

from vaehpc import __version__, doctor, explain, plan, prepare, report, status
from vaehpc.launch import Launch, parsed
from vaehpc.replay import Replay
from vaehpc.study.packages import ANALYSIS_EXTRAS, TRAIN_EXTRAS

ROOT = Path(__file__).parent.parent
PAGES = {
    name: (ROOT / name).read_text()
    for name in (
        *("README.md", "analysis/tutorial.md", "vaehpc/README.md", "jobs/README.md"),
        *(str(page.relative_to(ROOT)) for page in ROOT.glob("analysis/studies/*/README.md")),
    )
}
OTHERS = {
    "vaehpc.prepare": prepare.Arguments,
    "vaehpc.replay": Replay,
    "vaehpc.explain": explain.Arguments,
    "vaehpc.status": status.Arguments,
    "vaehpc.report": report.Arguments,
    "vaehpc.doctor": doctor.Doctor,
    "vaehpc.plan": plan.Arguments,
}
COMMANDS = sorted({found for page in PAGES.values() for found in re.findall(r"python -m vaehpc\.[a-z]+[^`\n>]*", page)})


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")  # no Slurm, whatever this machine has
    (tmp_path / "site.toml").write_text("executor = 'slurm'\n")
    (tmp_path / "analysis").symlink_to(ROOT / "analysis")
    _, _, module, *arguments = shlex.split(command)
    if module == "vaehpc.launch":
        assert isinstance(parsed(arguments), Launch)
    else:
        asked = doctor.GpuDoctor if "--gpu" in arguments else OTHERS[module]
        tyro.cli(asked, args=arguments)


def test_commands_were_found() -> None:
    assert len(COMMANDS) >= 15


def test_lines_for_this_machine_say_so() -> None:
    launches = [command for command in COMMANDS if "vaehpc.launch" in command]
    assert [line for line in launches if not re.search("--executor local|--site|--dry-run", line)] == []


def test_completion_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "`vaehpc launch --tyro-print-completion bash`" in PAGES["vaehpc/README.md"]
    with pytest.raises(SystemExit):
        parsed(["--tyro-print-completion", "bash"])
    assert "--dry-run" in capsys.readouterr().out


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    pages = "\n".join(PAGES.values())
    asked = set(re.findall(r"^make ([a-z-]+)$", pages, re.M)) | set(re.findall(r"`make ([a-z-]+)`", pages))
    assert {"demo", "test", "lint", "check-long"} <= asked
    assert [target for target in asked if not re.search(rf"^{target}:", makefile, re.M)] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_exist(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGES[page])
    assert targets
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra
        for page in PAGES.values()
        for extras in re.findall(r"vaehpc\[([^]]+)]", page)
        for extra in extras.split(",")
    }
    assert named == {*TRAIN_EXTRAS, *ANALYSIS_EXTRAS}
    assert named <= set(project)


def test_changelog_and_citation_are_of_this_version() -> None:
    changes = re.findall(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text()
    version, date = changes[0]
    assert version == __version__
    assert f"\nversion: {version}\ndate-released: {date}\n" in citation
