"""Write a small simulated raw data set of a source, to try its command without downloading anything.

    python tools/simulate_sources.py OUT --source qubiq --cases 5
    aleatoric prepare qubiq OUT data/qubiq_pancreas --task pancreas

All that it writes is simulated and says so: no patient's image, no rater's contour is in it.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCES = {
    "qubiq": "aleatoric prepare qubiq {0} SET --task brain-growth",
    "brats": "aleatoric prepare brats {0} SET",
    "kohl": "aleatoric prepare kohl {0} SET",
    "lidc_pickle": "aleatoric prepare pickle {0} SET",
    "datalist": "aleatoric prepare datalist {0}/LIST.json SET",
}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--source", choices=SOURCES, required=True)
    parser.add_argument(
        "--cases", type=int, help="cases, or patients (default: 10, 20 with --defects; of each QUBIQ 3)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--defects", action="store_true", help="of datalist: spoil a case in every way that a dry run shall find"
    )
    options = parser.parse_args(words)
    try:
        return _write(options)
    except OSError as error:
        return _refuse(
            f"{options.out} cannot be written ({error.strerror or error}), a new folder expected; choose one."
        )
    except KeyboardInterrupt:
        print(f"interrupted: {options.out} is not complete, delete it", file=sys.stderr)
        return 130


def _write(options: argparse.Namespace) -> int:
    out, source = options.out, options.source
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return _refuse(f"{out} is not empty or no folder, a new folder expected; choose another one.")
    if options.cases is not None and options.cases < 1:
        return _refuse(f"--cases {options.cases} found, 1 or more expected; correct it.")
    if options.seed < 0:
        return _refuse(f"--seed {options.seed} found, 0 or more expected; correct it.")
    if options.defects and source != "datalist":
        return _refuse(f"--defects found with --source {source}, --source datalist expected; leave out one.")
    module = importlib.import_module(f"simulated.{source}")
    cases = options.cases or (3 if source == "qubiq" else 20 if options.defects else 10)  # QUBIQ has volumes
    more = {"defects": module.DEFECTS} if options.defects else {}
    out.mkdir(parents=True, exist_ok=True)
    module.write(out, cases, options.seed, said=lambda line: print(line, file=sys.stderr, flush=True), **more)
    after = SOURCES[source].format(shlex.quote(str(out))) + (" --dry-run" if options.defects else "")
    print(f"{out}: simulated; next: {after}")
    return 0


def _refuse(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
