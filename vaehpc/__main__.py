"""`vaehpc VERB ...`, the same as `python -m vaehpc.VERB ...`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from vaehpc.command import nearest, neutral
from vaehpc.study.provenance import code_version

VERBS = {
    "plan": "say how many seeds a study needs, and what they cannot show",
    "launch": "train, measure and report a study",
    "status": "say what every run of a study is doing, why some failed, what they used",
    "report": "compute the statistics that trained runs lack, and write the report anew",
    "doctor": "check all that a study needs before anything is queued; --here: this image alone; --gpu: a GPU node",
    "replay": "fork a run before it jumped, and say what made it jump",
    "explain": "say what happened around each trigger of a run",
    "prepare": "make a data set of CelebA's images, of other photographs, or of built-in faces",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named by the first argument."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        verbs = "\n".join(f"  {verb:9} {does}" for verb, does in VERBS.items())
        print(f"usage: vaehpc VERB ...\n       vaehpc --version\n\n{verbs}")
        return 0 if arguments else 2
    if arguments == ["--version"]:
        print(f"vaehpc {code_version()}")
        return 0
    verb = neutral(arguments.pop(0))
    if verb not in VERBS:
        print(f"vaehpc: unknown verb '{verb}'{nearest(verb, VERBS)}. Verbs: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    result: int = importlib.import_module(f"vaehpc.{verb}").main(arguments)
    return result


if __name__ == "__main__":
    sys.exit(main())
