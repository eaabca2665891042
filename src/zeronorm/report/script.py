"""The command line of a script under experiments/, and the JSON that it leaves for the report."""

import argparse
import json
from pathlib import Path
from typing import Any

from zeronorm import provenance


def arguments(file: str, description: str, rounds: int | None = None) -> argparse.Namespace:
    """What a script's command line says: rounds (where it takes any), small, and to, the folder
    that its JSON goes to.

    small: a size at which the script is done in seconds, so that a test can run it. Its numbers
    measure nothing, so it may not write them beside the script.

    file: of the script; `to` is its folder unless given.
    description: its docstring, whose first paragraph is the help.
    rounds: how many unless given; None: the script takes none.
    Raises SystemExit: the command line is wrong, which is said on stderr.
    """
    provenance.tags()  # keeps what it finds: of the code that is about to be measured
    parser = argparse.ArgumentParser(description=description.strip().split("\n\n")[0])
    if rounds is not None:
        parser.add_argument("rounds", type=int, nargs="?", default=rounds)
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help="where the JSON goes; default: beside the script"
    )
    parser.add_argument(
        "--small", action="store_true", help="a size that runs in seconds; needs --to"
    )
    given = parser.parse_args()
    if rounds is not None and given.rounds < 1:
        parser.error(f"rounds={given.rounds} must be at least 1")
    here = Path(file).resolve().parent
    if given.small and (given.to is None or given.to.resolve() == here):
        parser.error("--small measures nothing: say with --to FOLDER where its JSON goes")
    if given.to is not None and not given.to.is_dir():
        parser.error(f"--to {given.to} is no folder")
    given.to = given.to or here
    return given


def write(folder: Path, name: str, rows: list[dict[str, Any]], **more: Any) -> None:
    """<name>.json in `folder`, with date, commit, versions and hardware; prints the rows."""
    content = {"rows": rows, **more, **provenance.tags()}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else str(v) for k, v in row.items()))
