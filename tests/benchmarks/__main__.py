"""All benchmarks, each part in a process of its own, then one table and a JSON file.

`make bench`, or `make bench BENCH_ARGS=--quick` for a first look in a few minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.benchmarks.measure import Row, table_of

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
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the rows are left")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for part, environment in PARTS.items():
            path = Path(folder) / f"{part}.json"
            line = [sys.executable, "-m", f"tests.benchmarks.{part}", *(["--quick"] if arguments.quick else []), path]
            said = path.with_suffix(".txt")
            with said.open("w") as stderr:  # TensorFlow's remarks, of interest only where a part fails
                asked = os.environ | environment | {"TF_CPP_MIN_LOG_LEVEL": "3"}
                if subprocess.run(line, env=asked, stderr=stderr, check=False).returncode:
                    sys.exit(
                        f"{said.read_text()[-5000:]}\n{part} failed; what was measured before lies in {arguments.json}"
                    )
            rows += [Row(**row) for row in json.loads(path.read_text())]
            arguments.json.write_text(json.dumps([vars(row) for row in rows], indent=2) + "\n")
    Console().print(table_of(rows, "All"))
    print("Not measured: the rows of a GPU, and torch.compile where PyTorch is not installed.")


if __name__ == "__main__":
    main()
