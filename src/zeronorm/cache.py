"""What is slow to build, kept in a file with a checksum of it, so that a damaged file is built
again and not used."""

import hashlib
import json
import logging
import os
import pickle
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")
HEAD = hashlib.sha256().digest_size  # bytes in front of the pickle: its checksum


class DamagedError(Exception):
    """A kept file that is not as it was written."""


def kept(folder: Path, name: str, key: Any, build: Callable[[], T]) -> T:
    """What `build` returns, from the file of an earlier call with the same name and key (JSON) if
    that is whole.

    A file that is damaged or cannot be written costs a line in the log and the building, no more.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = folder / f"{name}-{digest}.pickle"
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except Exception as error:  # a pickle of another version can raise anything
        why = str(error) if isinstance(error, DamagedError) else f"{type(error).__name__}: {error}"
        logging.getLogger(__name__).warning(
            "%s is damaged (%s): %s is built again.", path, why, name
        )
    found = build()
    try:
        _write(path, found)
    except OSError as error:
        logging.getLogger(__name__).warning(
            "%s cannot be kept (%s): it will be built again.", path, error.strerror
        )
    return found


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        expected = file.read(HEAD)
        if hashlib.file_digest(file, "sha256").digest() != expected:
            raise DamagedError("its checksum differs")
        file.seek(HEAD)
        return pickle.load(file)


def _write(path: Path, value: Any) -> None:
    """All of it or nothing: several processes may build the same at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=path.name, suffix=".new", delete=False
    ) as file:
        try:
            file.write(bytes(HEAD))
            summed = _Summed(file)
            pickle.dump(value, summed, protocol=pickle.HIGHEST_PROTOCOL)
            file.seek(0)
            file.write(summed.sum.digest())
            file.close()
            os.replace(file.name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(file.name)
            raise


class _Summed:
    """A file to write to, and the checksum of what was written."""

    def __init__(self, file: IO[bytes]):
        self.file, self.sum = file, hashlib.sha256()

    def write(self, data) -> int:
        self.sum.update(data)
        return self.file.write(data)
