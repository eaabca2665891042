"""Where the files lie that come with the code. Alone, so that who only reads a report does not
import Hydra."""

from pathlib import Path


def conf_dir() -> Path:
    """conf/ in a checkout, zeronorm/conf in an installed wheel."""
    here = Path(__file__).resolve()
    checkout = here.parents[2] / "conf"
    return checkout if checkout.is_dir() else here.parent / "conf"
