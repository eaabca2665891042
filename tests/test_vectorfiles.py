"""Files of vectors: found out by their bytes, held against what they say, and never executed."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from gensim.models import FastText, KeyedVectors
from gensim.models.fasttext import save_facebook_model

from zeronorm import checks, vectorfiles, vectors

WORDS = ["alien", "zebra", "ünïcode", "<unk>", "{"]
ROWS = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
ROWS[1] = 0
PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{format: the bytes that gensim itself writes}."""
    folder = tmp_path_factory.mktemp("formats")
    kept = KeyedVectors(vector_size=4)
    kept.add_vectors(WORDS, ROWS)
    kept.save_word2vec_format(str(folder / "word2vec"))
    kept.save_word2vec_format(str(folder / "word2vec_binary"), binary=True)
    kept.save(str(folder / "gensim"))
    fast = FastText([WORDS] * 3, vector_size=4, min_count=1, epochs=1, workers=1, bucket=10)
    save_facebook_model(fast, str(folder / "fasttext"))
    found = {file.name: file.read_bytes() for file in folder.iterdir()}
    return found | {"glove": found["word2vec"].partition(b"\n")[2]}


def refusal(path, format=None):
    with pytest.raises(vectors.VectorsError) as said:
        vectors.keyed_vectors(None, str(path), format)
    assert (
        str(path) in str(said.value)
        and "\n" not in str(said.value)
        and str(said.value).count(". ") == 0
    )
    return str(said.value)


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("format", ["word2vec", "word2vec_binary", "glove", "fasttext"])
def test_a_format_is_found_by_its_bytes_whatever_the_name(files, tmp_path, format, ending):
    for name in (f"vectors{ending}", "vectors.dat"):
        path = tmp_path / name
        path.write_bytes(PACKED[ending](files[format]))
        for chosen in (None, format):
            found = vectors.keyed_vectors(None, str(path), chosen)
            assert sorted(found.index_to_key) == sorted(WORDS)
            if format != "fasttext":
                np.testing.assert_allclose(vectors.matrix(found, WORDS, "float32"), ROWS, rtol=1e-6)


@pytest.mark.parametrize("format", ["word2vec", "word2vec_binary", "glove"])
def test_what_is_read_is_what_gensim_reads(files, tmp_path, format):
    (tmp_path / "v").write_bytes(files[format])
    theirs = KeyedVectors.load_word2vec_format(
        str(tmp_path / "v"), binary="binary" in format, no_header=format == "glove"
    )
    ours = vectors.keyed_vectors(None, str(tmp_path / "v"))
    assert ours.index_to_key == theirs.index_to_key
    np.testing.assert_array_equal(ours.vectors, theirs.vectors)
    assert ours["alien"].dtype == np.float32 and ours.get_index("{") == 4


def variant(lines, text):
    return b"".join(line + text for line in lines)


def test_other_spellings_of_text(files, tmp_path):
    """A byte order mark, CRLF, spaces at the end of a line, none at the end of the file, a word
    with spaces, twice the same word."""
    for format in ("word2vec", "glove"):
        lines = files[format].splitlines()
        more = [b". . . 1 2 3 4", b"  5 6 7 8", b"alien 9 9 9 9"] if format == "glove" else []
        for content in (
            b"\xef\xbb\xbf" + files[format],
            variant(lines, b"\r\n"),
            variant(lines, b" \n"),
            files[format].rstrip(),
            files[format] + b"\n\n",
            variant([*lines, *more], b"\n"),
        ):
            (tmp_path / "v").write_bytes(content)
            for chosen in (None, format):
                found = vectors.keyed_vectors(None, str(tmp_path / "v"), chosen)
                np.testing.assert_allclose(vectors.matrix(found, WORDS, "float32"), ROWS, rtol=1e-6)
    assert (
        found[". . ."].tolist() == [1, 2, 3, 4]
        and found[" "].tolist() == [5, 6, 7, 8]
        and len(found) == 7
    )


def npy(rows, save=np.save):
    file = io.BytesIO()
    save(file, rows)
    return file.getvalue()


def packed_as(opener, mode, add):
    file = io.BytesIO()
    with (
        opener(fileobj=file, mode=mode) if opener is tarfile.open else opener(file, mode)
    ) as archive:
        add(archive)
    return file.getvalue()


WRONG = {
    "empty": (b"", "is empty"),
    "npy": (npy(ROWS), "is a NumPy array, which has no words"),
    "npz": (npy(ROWS, np.savez), "is a zip archive"),
    "zip": (
        packed_as(zipfile.ZipFile, "w", lambda z: z.writestr("glove.txt", "a 1 2\n")),
        "is a zip archive",
    ),
    "tar": (
        packed_as(tarfile.open, "w", lambda t: t.addfile(tarfile.TarInfo("v"))),
        "is a tar archive",
    ),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "is a Git LFS pointer",
    ),
    "html": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "is an HTML or XML page"),
    "xml": (b"<?xml version='1.0'?><a/>", "is an HTML or XML page"),
    "utf-16": ("5 4\nalien 1 2 3 4\n".encode("utf-16"), "is UTF-16 or UTF-32 text"),
    "utf-16 without mark": ("alien 1 2 3 4\n".encode("utf-16-le"), "is UTF-16 or UTF-32 text"),
    "utf-32": ("alien 1 2 3 4\n".encode("utf-32"), "is UTF-16 or UTF-32 text"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
    "parquet": (b"PAR1" + bytes(100), "is a Parquet file"),
    "zstandard": (b"\x28\xb5\x2f\xfd" + bytes(100), "is packed by zstandard"),
    "json": (b'{"alien": [1, 2]}', "is JSON"),
    "csv": (b"alien,1,2,3,4\nzebra,1,2,3,4\n", "has commas between its fields"),
    "tsv": (b"alien\t1\t2\t3\t4\nzebra\t1\t2\t3\t4\n", "has tabs between its fields"),
    "prose": (
        b"There is nothing here to be read.\nNothing.\n",
        "is of no format that is known by its bytes",
    ),
    "noise": (bytes(range(256)) * 10, "is of no format that is known by its bytes"),
    "cut gz": (gzip.compress(b"a 1 2\n" * 5000)[:-20], "ended before the end-of-stream"),
    "bad gz": (b"\x1f\x8b" + bytes(range(200)), "cannot be read"),
    "no dimension": (b"5 0\na\nb\nc\nd\ne\n", "its header says 5 words of dimension 0"),
    "no words": (b"0 4\n", "its header says 0 words of dimension 4"),
    "fewer than said": (b"5 2\na 1 2\nb 1 2\n", "its header says 5 words, and it has 2"),
    "more than said": (b"1 2\na 1 2\nb 1 2\n", "its header says 1 words, and it has 2"),
    "far too many said": (b"1000000000 300\na 1 2\n", "line 2 is no word and 300 numbers"),
    "short line": (b"a 1 2\nb 1\n", "line 2 is no word and 2 numbers"),
    "long line": (b"a 1 2\nb 1 2 3\n", "line 2 has more than 2 numbers"),
    "no number": (b"2 2\na 1 2\nb 1 x\n", "line 3 is no word and 2 numbers"),
    "latin-1": (b"a 1 2\n\xe9t\xe9 1 2\n", "the word in line 2 is not UTF-8"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_file_is_by_mistake_is_said(tmp_path, what):
    content, said = WRONG[what]
    for name, packed in PACKED.items():
        if "gz" in what and name:
            continue
        (tmp_path / f"v{name}").write_bytes(packed(content))
        assert said in refusal(tmp_path / f"v{name}")


def test_a_binary_is_held_against_its_header(files, tmp_path):
    whole, path = files["word2vec_binary"], tmp_path / "v"
    body = whole.partition(b"\n")[2]
    for content, said in {
        whole[:-3]: "ends in word 5 of the 5",
        whole[:20]: "the file is cut, or its header wrong",
        whole + b"more": "4 bytes follow the 5 words",
        b"3 4\n" + body: "bytes follow the 3 words",
        b"9 4\n" + body: "the file is cut, or its header wrong",
        b"5 3\n" + body: "",
        b"1000000000 300\n" + body: "which take at least 1201000000000 bytes",
    }.items():
        path.write_bytes(content)
        for format in (None, "word2vec_binary"):
            assert said in refusal(path, format)
    path.write_bytes(files["word2vec"])
    assert "; by its bytes it is vectors.source.format=word2vec" in refusal(path, "word2vec_binary")
    path.write_bytes(files["glove"])
    assert "no header of two integers" in refusal(path, "word2vec")
    path.write_bytes(files["word2vec"])
    assert "line 2 has more than 1 numbers" in refusal(path, "glove")
    with_newlines = whole.partition(b"\n")[0] + b"\n"
    for number, word in enumerate(WORDS):  # as word2vec's own program writes it
        with_newlines += word.encode() + b" " + struct.pack("<4f", *ROWS[number]) + b"\n"
    path.write_bytes(with_newlines)
    np.testing.assert_array_equal(vectors.keyed_vectors(None, str(path)).vectors, ROWS)


class Evil:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_is_opened_unless_asked_for(tmp_path, protocol, ending):
    marker = tmp_path / "marker"
    content = PACKED[ending](pickle.dumps(Evil(marker), protocol=protocol))
    for name in ("v.txt", "v.kv", "v.bin", "v.pkl", "v.model", f"v{ending}", f"v.kv{ending}"):
        path = tmp_path / name
        path.write_bytes(content)
        for format in (None, "word2vec", "word2vec_binary", "glove", "fasttext"):
            said = refusal(path, format)
            assert not marker.exists(), (name, format)
            if format is None and protocol > 1:
                assert "to open a pickle is to run whatever program it holds" in said
                assert "vectors.source.format=gensim" in said


def test_the_command_refuses_a_pickle_that_was_not_asked_for(composed, files, tmp_path):
    path = tmp_path / "own.kv"
    path.write_bytes(files["gensim"])
    source = ("vectors=keyed_vectors", f"vectors.source.path={path}")
    with pytest.raises(
        vectors.VectorsError, match=r"own\.kv is a pickle, as KeyedVectors.save writes it"
    ):
        checks.check(composed(*source))
    assert "no row" not in str(checks.check(composed(*source, "vectors.source.format=gensim")))


def test_an_unknown_format(tmp_path):
    with pytest.raises(
        vectors.VectorsError,
        match="format=parquet is unknown: use one of word2vec, word2vec_binary",
    ):
        vectorfiles.read(str(tmp_path / "v"), "parquet")


def test_any_bytes_cost_one_sentence(files, tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "v"
    for format, whole in files.items():
        for _ in range(40):
            start = int(rng.integers(len(whole)))
            content = (
                whole[:start]
                + rng.bytes(int(rng.integers(8)))
                + whole[start + int(rng.integers(8)) :]
            )
            path.write_bytes(content)
            for chosen in (None, format if format != "gensim" else "glove"):
                try:
                    vectors.keyed_vectors(None, str(path), chosen)
                except vectors.VectorsError as error:
                    assert "\n" not in str(error)
