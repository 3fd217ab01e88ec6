"""Clients of Slurm that give recorded answers."""

import os
from pathlib import Path


class Clients:
    """A folder of PATH whose clients of Slurm give recorded answers, and note what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.asked = folder / "asked"
        for name in ("squeue", "sacct", "scancel", "sacctmgr"):
            self.answers(name, "")

    def answers(self, name: str, text: str) -> None:
        """It prints this."""
        (self.folder / f"{name}.answer").write_text(text)
        self._script(name, f'cat "{self.folder}/{name}.answer"')

    def answers_to(self, name: str, word: str, text: str) -> None:
        """It prints this where the word is among what it is asked; elsewhere what it printed before."""
        (self.folder / f"{name}.{word}").write_text(text)
        before = (self.folder / name).read_text().splitlines()[-1]
        self._script(name, f'case " $* " in *" {word} "*) exec cat "{self.folder}/{name}.{word}";; esac; {before}')

    def fails(self, name: str, message: str) -> None:
        """It complains and ends with 1."""
        self._script(name, f'echo "{message}" >&2; exit 1')

    def hangs(self, name: str) -> None:
        """It never answers."""
        self._script(name, "exec sleep 60")

    def _script(self, name: str, work: str) -> None:
        script = self.folder / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> "{self.asked}"\n{work}\n')
        script.chmod(0o755)

    def lines(self) -> list[str]:
        """The commands so far."""
        return self.asked.read_text().splitlines() if self.asked.exists() else []

    def path(self) -> str:
        """PATH with these in front."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"
