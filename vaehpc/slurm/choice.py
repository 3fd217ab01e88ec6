"""Where a launch runs its jobs: in Slurm's queue where it answers, else on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from vaehpc.command import UserError
from vaehpc.machine.hardware import has_slurm
from vaehpc.schema.site import SiteConfig
from vaehpc.slurm.client import SlurmError, configuration
from vaehpc.study.sites import Executor, built_in_site, read_site

WITHOUT_CONFIGURATION = re.compile("configuration source|configuration file|s_p_parse_file")
"""What Slurm's clients say, older ones while they retry for a minute, where only their package is installed."""


def chosen_site(path: Path | None, asked: Literal["auto"] | Executor, line: str) -> tuple[SiteConfig, Executor, str]:
    """Where jobs run, how they get there, and for `auto` why so, in words.

    Args:
        path: of the site's file; None: the one that is shipped for the executor.
        asked: auto stands for what the site's file says, else for Slurm where it answers, else for this machine.
        line: this command's, to be given again.

    Raises:
        UserError: the site's file is wrong, or is for another executor; or Slurm is set up here and does not answer.
    """
    if path is not None:
        site = read_site(path)
        if site.executor == "local":
            raise UserError(f"--site {path} is for this machine, where jobs/sites/local.toml holds: leave it out")
        if asked not in ("auto", site.executor):
            raise UserError(f"--site {path} is for executor {site.executor}, not for --executor {asked}")
        return site, site.executor, ""
    if asked != "auto":
        return built_in_site("slurm" if asked == "slurm" else "local"), asked, ""
    try:
        executor, why = slurm_or_local()
    except SlurmError as error:
        raise UserError(
            f"sbatch is on this machine, but Slurm does not answer: {error}. Give the line again later, or run here:\n"
            f"  {line}\n  {line} --executor local"
        ) from None
    return built_in_site(executor), executor, why


def slurm_or_local() -> tuple[Literal["slurm", "local"], str]:
    """What there is, and in words how that is known.

    Raises:
        SlurmError: Slurm is set up here and does not answer.
    """
    if not has_slurm():
        return "local", "no sbatch on this machine"
    try:
        configuration()
    except SlurmError as error:
        if WITHOUT_CONFIGURATION.search(str(error)):
            return "local", "sbatch is on this machine, but Slurm's client finds no configuration"
        raise
    return "slurm", "sbatch is on this machine"
