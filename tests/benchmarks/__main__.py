"""All benchmarks, each part in a process of its own, then one table and a JSON file.

`make bench`, or `make bench BENCH_ARGS=--quick` for a first look in a few minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

from rich.console import Console

from tests.benchmarks.measure import Row, rows_of, table_of

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
PARTS = {
    "launching": ONE_THREAD,
    "filesystem": ONE_THREAD,
    "training": ONE_THREAD,
    "cost_of_records": ONE_THREAD,
    "foretelling": {},
    "latents": {},
}
"""Each with its environment."""


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats; neither inertia nor t-SNE against others")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the rows are left")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for part in arguments.only:
        environment = PARTS[part] | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        with (
            tempfile.NamedTemporaryFile("r") as said,
            mock.patch.dict(os.environ, environment),
            ProcessPoolExecutor(1, get_context("spawn")) as pool,
        ):
            try:
                rows += pool.submit(rows_of, part, arguments.quick, said.name).result()
            except Exception:
                print(f"{said.read()[-5000:]}\n{part} failed; what was measured before lies in {arguments.json}")
                raise
        arguments.json.write_text(json.dumps([vars(row) for row in rows], indent=2) + "\n")
    Console().print(table_of(rows))
    print("Not measured: the rows of a GPU, and torch.compile where PyTorch is not installed.")


if __name__ == "__main__":
    main()
