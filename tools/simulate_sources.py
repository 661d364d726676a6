"""Write a small simulated raw data set of a source, to try its command without downloading anything.

    python tools/simulate_sources.py OUT --source qubiq --cases 5
    aleatoric prepare qubiq OUT data/qubiq_pancreas --task pancreas

All that it writes is simulated and says so: no patient's image, no rater's contour is in it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

SOURCES = {
    "qubiq": "aleatoric prepare qubiq {0} SET --task brain-growth",
    "kohl": "aleatoric prepare kohl {0} SET",
    "lidc_pickle": "aleatoric prepare pickle {0} SET",
    "datalist": "aleatoric prepare datalist {0}/LIST.json SET",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--source", choices=SOURCES, required=True)
    parser.add_argument("--cases", type=int, help="cases, or patients (default: 10; of each QUBIQ task 3)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        print(f"error: {options.out} is not empty, a new folder expected; choose another one.", file=sys.stderr)
        return 2
    cases = options.cases or (3 if options.source == "qubiq" else 10)  # QUBIQ has volumes
    options.out.mkdir(parents=True, exist_ok=True)
    importlib.import_module(f"simulated.{options.source}").write(options.out, cases, options.seed)
    print(f"{options.out}: simulated; next: {SOURCES[options.source].format(options.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
