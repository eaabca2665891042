"""What a sweep shows while it runs."""

import io

import pytest
from rich.console import Console

from zeronorm.sweep.display import Display, differing, remaining, report_progress


def test_remaining_time():
    assert remaining(60, 0.25) == "3:00 left"
    assert remaining(10, 0.001) == remaining(10, 1.0) == remaining(10, 0.99) == ""


@pytest.fixture
def display(tmp_path):
    """Of four runs, at 30 seconds."""
    clock = iter([0.0, *[30.0] * 9]).__next__
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    names = [f"trainable {name} seed" for name in "abcd"]
    return Display(folders, names, [1.0, 1.0, 1.0, 1.0], clock)


def test_the_display_counts_runs_and_fractions(display):
    report_progress(display.folders[0], "nan", 8, 8, "step 0")
    report_progress(display.folders[1], "running", 8, 4)
    look = display.look()
    assert (look.doing, look.ended) == ("1/4 runs  b", (("a", "nan", "step 0"),))
    assert look.share == pytest.approx((1 + 0.2 + 0.65 / 2) / 4) and look.left == "0:49 left"
    assert display.look().ended == ()  # said once


@pytest.mark.parametrize("part, done", [("compiling", 0), ("evaluating", 8), ("examining", 1)])
def test_the_display_says_what_takes_no_steps_and_promises_no_time_for_it(display, part, done):
    for folder in display.folders[:3]:
        report_progress(folder, "finite", 8, 8)
    report_progress(display.folders[3], "running", 8, done, part=part)
    look = display.look()
    assert (look.doing, look.left) == (f"3/4 runs  d ({part})", "")


def test_a_run_that_was_killed_is_not_counted_and_no_time_is_left_of_its_sweep(display):
    report_progress(display.folders[0], "finite", 8, 8)
    report_progress(display.folders[1], "killed", 1, 1)
    report_progress(display.folders[2], "running", 8, 4)
    look = display.look()
    assert (look.doing, look.left) == ("1/4 runs  c", "")
    assert look.ended == (("a", "finite", ""), ("b", "killed", ""))


@pytest.mark.parametrize("terminal", [True, False])
def test_deaths_are_said_as_they_happen(display, terminal, monkeypatch):
    told = Console(file=io.StringIO(), force_terminal=terminal, width=80, color_system=None)
    monkeypatch.setattr("zeronorm.sweep.display.console", told)
    for folder, (state, said) in zip(
        display.folders,
        [("nan", "step 0, as predicted"), ("finite", ""), ("failed", "no disk")],
        strict=False,
    ):
        report_progress(folder, state, 8, 8, said)
    display.say(display.look())
    lines = told.file.getvalue().splitlines()
    alive = [] if terminal else ["finite"]
    assert [line.split()[0] for line in lines] == ["NaN", *alive, "FAILED"]
    assert lines[0].startswith("NaN     a  step 0, as predicted")


def test_labels_keep_what_differs():
    assert differing(["a b seed=0", "a c seed=0"]) == ["b", "c"]
    assert differing(["a b", "a"]) == ["b", "a"] and differing(["a b"]) == ["a b"]
