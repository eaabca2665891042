"""python -m zeronorm.autopsy STEP.npz --model MODULE:FUNCTION: the report of a step in a capsule.

Where only TensorFlow and what it brings is installed; `zeronorm autopsy` does the same and more.
"""

import argparse
import os
import sys

from zeronorm.autopsy.capsule import CapsuleError
from zeronorm.autopsy.factory import ModelError, made
from zeronorm.autopsy.watch import replay


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zeronorm.autopsy", description=__doc__)
    parser.add_argument("capsule", help="a file that zeronorm.Autopsy(capsule=...) wrote")
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODULE:FUNCTION",
        help="a function that returns the model, compiled as it was trained",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    given = parser.parse_args()
    sys.path.insert(0, os.getcwd())
    try:
        report = replay(made(given.model), given.capsule)
    except (CapsuleError, ModelError, ValueError) as error:
        raise SystemExit(f"zeronorm.autopsy: {error}") from None
    print(report.to_json() if given.json else report)


if __name__ == "__main__":
    main()
