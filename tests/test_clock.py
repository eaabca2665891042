"""The phases of a run's clock add up to what they cover."""

import json
import time

import pytest

from zeronorm import clock
from zeronorm.experiment import _compiling


@pytest.fixture
def now(monkeypatch):
    """A time that stands still but for `now.passes`."""

    class Now:
        seconds = 0.0

        def passes(self, seconds):
            self.seconds += seconds

    now = Now()
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now.seconds)
    return now


def test_a_phase_inside_another_counts_for_itself_alone(now):
    found = clock.Clock()
    with found("steps"):
        now.passes(1)
        with found("evaluation"):
            now.passes(2)
            with found("files"):
                now.passes(4)
        now.passes(8)
        with found("evaluation"):
            now.passes(16)
    with found("steps"):
        now.passes(32)
    assert found.seconds == {"steps": 41, "evaluation": 18, "files": 4}
    assert sum(found.seconds.values()) == now.seconds


def test_what_raises_is_counted_and_phases_add_up_after_a_move(now):
    found = clock.Clock()
    with pytest.raises(KeyError), found("steps"), found("files"):
        now.passes(3)
        raise KeyError
    with found("steps"):
        now.passes(5)
        found.move(2, "steps", to="compilation")
    assert found.seconds == {"files": 3, "steps": 3, "compilation": 2}
    assert sum(found.seconds.values()) == now.seconds


def test_the_file_says_when(tmp_path):
    found = clock.Clock()
    with found("steps"):
        pass
    found.write(tmp_path / "seconds.json")
    known = json.loads((tmp_path / "seconds.json").read_text())
    assert known["begun"] <= known["ended"] <= time.time()
    assert known["seconds"] == found.seconds


@pytest.mark.parametrize(
    "looks, seconds",
    [
        ([(0, 0.0), (25, 30.0), (50, 35.0), (75, 42.0)], 25.0),  # 0.2 s a step
        ([(0, 5.0), (25, 10.0)], 0.0),  # one piece: nothing to tell it by
        ([(0, 0.0), (10, 1.0), (20, 9.0)], 0.0),  # the first was the fastest
    ],
)
def test_what_the_first_steps_took_longer_is_compiling(looks, seconds):
    assert _compiling(looks) == pytest.approx(seconds)
