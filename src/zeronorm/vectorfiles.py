"""Files of word vectors: which format one has, by its bytes; what it holds, held against what it
says it holds."""

import bz2
import gzip
import io
import lzma
import mmap
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np


class VectorsError(Exception):
    """Vectors that cannot be used: one sentence that names the file and what is wrong with it."""


HEAD = 65_536  # bytes by which a file is known
BOM = b"\xef\xbb\xbf"
LONGEST = 10_000  # bytes of a word, at most
PACKED = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
FASTTEXT = (793712314).to_bytes(4, "little")  # Facebook's magic number

OTHERS = {  # what a file may be by mistake: its first bytes
    "a NumPy array, which has no words: write words and rows as word2vec text": rb"\x93NUMPY",
    "a zip archive (.npz among them): unpack it, and name the file inside": rb"PK[\x03\x05]",
    "a Git LFS pointer, not the file itself: run `git lfs pull`": rb"version https://git-lfs",
    "UTF-16 or UTF-32 text: write it as UTF-8": (
        rb"\xff\xfe|\xfe\xff|\x00\x00\xfe\xff|([!-~]\x00){4}|(\x00[!-~]){4}"
    ),
    "an HTML or XML page, not the file itself: download it again": (
        rb"(?i:\s*<(!doctype|html|head|body|\?xml))"
    ),
    "an HDF5 file": rb"\x89HDF",
    "a Parquet file": rb"PAR1",
    "packed by zstandard: unpack it": rb"\x28\xb5\x2f\xfd",
    "packed by 7-Zip: unpack it": rb"7z\xbc\xaf",
    "a tar archive: unpack it, and name the file inside": rb".{257}ustar",
    "JSON: write words and numbers with spaces between, a word a line": (
        rb"\s*(\{\s*[\"\}]|\[\s*[\"\[\{\]])"
    ),
}
PICKLE = rb"\x80[\x02-\x05]"


class _FaultError(Exception):
    """What is wrong with a file, without its name."""


def read(path: str, format: str | None = None):
    """gensim KeyedVectors.

    format: as in `vectors.keyed_vectors`.
    Raises VectorsError, one sentence that names the file; nothing in the file is executed unless
    format='gensim'.
    """
    from gensim.models import KeyedVectors

    if format is not None and format not in READERS:
        raise VectorsError(
            f"vectors.source.format={format} is unknown: use one of {', '.join(READERS)}, or null."
        )
    try:
        chosen = format or detected(path)
    except _FaultError as error:
        raise VectorsError(f"{path} {error}.") from error
    try:
        found = READERS[chosen](path)
    # gensim's formats fail each in its own way (pickle, struct, ValueError, ...)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        seen = "" if format is None else _advice(path, format)
        raise VectorsError(
            f"{path} cannot be read as vectors.source.format={chosen} ({reason}){seen}."
        ) from error
    if not isinstance(found, KeyedVectors):
        raise VectorsError(
            f"{path} holds a {type(found).__name__}, not gensim KeyedVectors: save model.wv"
            " instead."
        )
    if not len(found) or not found.vector_size:
        raise VectorsError(
            f"{path} holds {len(found)} vectors of dimension {found.vector_size}: there is none to"
            " use."
        )
    return found


def _advice(path: str, format: str) -> str:
    try:
        known = detected(path)
    except (_FaultError, OSError) as error:
        return f"; it {error}" if isinstance(error, _FaultError) else ""
    return "" if known == format else f"; by its bytes it is vectors.source.format={known}"


def detected(path: str) -> str:
    """The format of a file, a key of READERS, by its first bytes. Raises _FaultError if it has
    none, or is a pickle."""
    try:
        with _opened(path) as file:
            head = file.read(HEAD)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise _FaultError(f"cannot be read ({error})") from error
    if not head:
        raise _FaultError("is empty")
    if head.startswith(FASTTEXT):
        return "fasttext"
    if re.match(PICKLE, head):
        raise _FaultError(
            "is a pickle, as KeyedVectors.save writes it, and to open a pickle is to run whatever"
            " program it holds: if you trust it, name it with vectors.source.format=gensim"
        )
    for what, pattern in OTHERS.items():
        if re.match(pattern, head, re.DOTALL):
            raise _FaultError(f"is {what}")
    lines = head.removeprefix(BOM).split(b"\n")
    if re.fullmatch(rb"\s*\d+ +\d+\s*", lines[0]):
        # a vector of float32 holds a byte that no text does
        binary = re.search(rb"[\x00-\x08\x0e-\x1f]", b"\n".join(lines[1:]))
        return "word2vec_binary" if binary else "word2vec"
    fields = lines[0].rstrip().split(b" ")
    if _numbers(fields[max(1, len(fields) - 2) :]) and (len(lines) > 1 or len(head) < HEAD):
        return "glove"
    for name, mark in (("tabs", b"\t"), ("commas", b","), ("semicolons", b";")):
        if _numbers(lines[0].rstrip().split(mark)[1:]):
            raise _FaultError(
                f"has {name} between its fields: write words and numbers with spaces between"
            )
    raise _FaultError(
        "is of no format that is known by its bytes: vectors are read from word2vec text or"
        " binary, GloVe text and fastText .bin; if it is one, name it with vectors.source.format,"
        f" one of {', '.join(READERS)}"
    )


def _numbers(texts: list[bytes]) -> list[float] | None:
    try:
        return [float(text) for text in texts] or None
    except ValueError:
        return None


@contextmanager
def _opened(path: str) -> Iterator[io.BufferedIOBase]:
    """The file, unpacked if its first bytes say that it is packed, whatever its name."""
    with open(path, "rb") as raw:
        start = raw.read(8)
    unpack = next((opener for magic, opener in PACKED if start.startswith(magic)), open)
    with unpack(path, "rb") as file:
        yield file


def _keyed(words: list[str], rows: np.ndarray):
    """KeyedVectors of the words; of a word that is there twice the first."""
    from gensim.models import KeyedVectors

    first: dict[str, int] = {}
    for number, word in enumerate(words):
        first.setdefault(word, number)
    found = KeyedVectors(vector_size=rows.shape[1])
    # add_vectors would copy them
    found.vectors = rows if len(first) == len(words) else rows[list(first.values())]
    found.index_to_key = list(first)
    found.key_to_index = {word: number for number, word in enumerate(first)}
    return found


def _word(raw: bytes, where: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _FaultError(f"{where} is not UTF-8") from error


def _header(line: bytes) -> tuple[int, int]:
    fields = line.removeprefix(BOM).split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields):
        raise _FaultError("its first line is no header of two integers, words and dimension")
    count, dim = map(int, fields)
    if not dim or not count:
        raise _FaultError(f"its header says {count} words of dimension {dim}")
    return count, dim


def _text(path: str, headed: bool):
    """Lines of a word and its numbers, separated by spaces; a word may hold spaces itself.

    headed: the first line says how many words of which dimension.
    """
    words, rows = [], []
    with _opened(path) as file:
        count, dim = _header(file.readline(LONGEST)) if headed else (None, None)
        for number, line in enumerate(file, start=2 if headed else 1):
            line = (line.removeprefix(BOM) if number == 1 else line).rstrip(b"\r\n ")
            if not line:
                continue
            dim = dim or len(line.split(b" ")) - 1
            word, *texts = line.rsplit(b" ", dim)
            values = _numbers(texts)
            if values is None or len(values) != dim:
                raise _FaultError(
                    f"line {number} is no word and {dim or 'its'} numbers, separated by spaces"
                )
            if _numbers([word.rpartition(b" ")[2]]) and b" " in word.strip(b" "):
                raise _FaultError(f"line {number} has more than {dim} numbers")
            words.append(_word(word, f"the word in line {number}"))
            # what float32 has no room for is inf, and is refused by its name later
            with np.errstate(over="ignore"):
                rows.append(np.array(values, np.float32))
    if count not in (None, len(words)):
        raise _FaultError(
            f"its header says {count} words, and it has {len(words)}: cut, or the header wrong"
        )
    if not words:
        raise _FaultError("it holds no vectors")
    return _keyed(words, np.array(rows))


def _binary(path: str):
    """A header line, then of each word its bytes, a space and `dim` float32 numbers; a newline may
    follow."""
    with _opened(path) as file:
        count, dim = _header(file.readline(LONGEST))
        start, size = file.tell(), 4 * dim
        data: mmap.mmap | bytes
        if isinstance(file, io.BufferedReader):  # not packed: no copy of it in memory
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        else:
            start, data = 0, file.read()
    if count * (size + 1) > len(data) - start:
        raise _FaultError(
            f"its header says {count} words of dimension {dim}, which take at least"
            f" {count * (size + 1)} bytes, and {len(data) - start} follow: the file is cut, or its"
            " header wrong"
        )
    words, rows = [], np.empty((count, dim), np.float32)
    for number in range(count):
        space = data.find(b" ", start, start + LONGEST)
        if space < 0 or space + 1 + size > len(data):
            raise _FaultError(f"it ends in word {number + 1} of the {count} that its header says")
        words.append(_word(data[start:space], f"word {number + 1}"))
        start = space + 1 + size
        rows[number] = np.frombuffer(data[space + 1 : start], "<f4")
        start += data[start : start + 1] == b"\n"
    if start < len(data):
        raise _FaultError(
            f"{len(data) - start} bytes follow the {count} words that its header says"
        )
    return _keyed(words, rows)


def _fasttext(path: str):
    from gensim.models.fasttext import load_facebook_vectors

    with _opened(path) as file:
        if isinstance(file, io.BufferedReader):
            return load_facebook_vectors(path)
        # gensim unpacks by the name, and not every kind
        with tempfile.NamedTemporaryFile(suffix=".bin") as unpacked:
            shutil.copyfileobj(file, unpacked)
            unpacked.flush()
            return load_facebook_vectors(unpacked.name)


def _pickle(path: str):
    from gensim.models import KeyedVectors

    return KeyedVectors.load(path)


READERS: dict[str, Callable] = {
    "word2vec": lambda path: _text(path, headed=True),
    "word2vec_binary": _binary,
    "glove": lambda path: _text(path, headed=False),
    "fasttext": _fasttext,
    "gensim": _pickle,
}
