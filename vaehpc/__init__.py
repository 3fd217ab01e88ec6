"""How often does a VAE with a tiny KL loss diverge? Many seeds of several arms as batch jobs, with exact intervals."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from vaehpc.study.tables import StudyTables

__version__ = "0.2.0"

# TensorFlow decides by the processor whether it uses oneDNN, and results differ in the last bits. Always on: the same
# numbers on more machines, and 1.4 times the speed on those where TensorFlow would leave it off. Here, because
# TensorFlow reads it when it is imported, which must not come first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def load(study: str | Path) -> StudyTables:
    """A finished study as tables (pandas where it is installed, else Arrow): `vaehpc.load("demo").runs`.

    Args:
        study: its folder, or its name under 'runs'.

    Raises:
        vaehpc.command.UserError: there is none.
    """
    # Imported here: a launcher has no pyarrow.
    from vaehpc.study.tables import load as load_study

    return load_study(study)
