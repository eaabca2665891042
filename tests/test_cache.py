"""What is kept between runs: whole, or built again."""

import logging

import numpy as np
import pytest

from zeronorm import cache, preparation

VALUE = {"rows": np.arange(5000, dtype=np.float32).reshape(50, 100), "words": ["a", "b"]}


def kept(folder, built, key=1):
    def build():
        built.append(key)
        return VALUE

    found = cache.kept(folder, "vectors", [key], build)
    np.testing.assert_array_equal(found["rows"], VALUE["rows"])
    return found


def test_it_is_built_once_for_each_key(tmp_path):
    built = []
    for key in (1, 1, 2, 2, 1):
        kept(tmp_path, built, key)
    assert built == [1, 2]
    assert len(list(tmp_path.iterdir())) == 2  # no file of a half-written one is left


def test_a_damaged_file_is_built_again_wherever_the_damage_is(tmp_path, caplog):
    built = []
    kept(tmp_path, built)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    damaged = [
        whole[:start] + bytes(64) + whole[start + 64 :] for start in range(0, len(whole) - 64, 331)
    ]
    damaged += [b"", b"x", whole[:40], whole[:-1], whole + b"x", whole[::-1], bytes(len(whole))]
    damaged += [
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        for place in range(0, len(whole), 997)
    ]
    for number, content in enumerate(damaged, start=1):
        file.write_bytes(content)
        caplog.clear()
        kept(tmp_path, built)
        assert len(built) == number + 1, number
        [line] = caplog.messages
        assert str(file) in line and line.endswith("vectors is built again.") and "\n" not in line
        assert file.read_bytes() == whole
    kept(tmp_path, built)
    assert len(built) == len(damaged) + 1


def test_what_cannot_be_kept_is_used_all_the_same(tmp_path, caplog):
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the folder should be")
    built = []
    with caplog.at_level(logging.WARNING):
        with pytest.raises(NotADirectoryError):
            (blocked / "x").read_bytes()
        kept(blocked, built)
    assert built == [1] and any("cannot be kept" in line for line in caplog.messages)


def test_an_interruption_leaves_nothing_behind(tmp_path):
    class Interrupting:
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.kept(tmp_path, "x", 1, Interrupting)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["corpus", "vectors", "baseline"])
def test_each_cached_input_of_a_run_is_checked(composed, excerpt, home, caplog, name):

    files = [file for file in (home / "cache").iterdir() if file.name.startswith(name)]
    before = {file: file.read_bytes() for file in files}
    try:
        for file, whole in before.items():
            middle = len(whole) // 2
            file.write_bytes(whole[:middle] + bytes(8) + b"\xff" * 8 + whole[middle + 16 :])
        preparation._read.cache_clear()
        again = preparation.load(composed())
    finally:
        for file, whole in before.items():
            file.write_bytes(whole)
    np.testing.assert_array_equal(again.words, excerpt.words)
    assert [line for line in caplog.messages if line.endswith(f"{name} is built again.")]
