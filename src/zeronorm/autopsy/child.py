"""An examiner, from this side: started, asked, its memory watched, ended or kept for the next
examination."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

import tensorflow as tf
from tensorflow.python.framework import config

from zeronorm.autopsy import examiner, thresholds
from zeronorm.autopsy import memory as memory_of
from zeronorm.autopsy.subject import Died, Ended


class Child:
    """An examiner. Raises OSError if it cannot be started."""

    def __init__(self, settings: str):
        environment = os.environ | {
            "CUDA_VISIBLE_DEVICES": "-1",
            "HIP_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", examiner.__file__, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # the terminal's Ctrl-C is for this process alone
        )
        # which leaves no dead process behind
        threading.Thread(target=self._process.wait, daemon=True).start()
        self.settings = settings
        self.base: float | None = None  # bytes that it takes before it computes

    def ask(self, message: tuple, limits: Callable[[float], str]):
        """(kind, answer). limits: of the bytes by which it has grown, which limit is reached.

        Raises Ended if one is, Died if the process has died; it has ended then.
        """
        answers: list = []
        thread = threading.Thread(target=self._exchange, args=(message, answers), daemon=True)
        thread.start()
        waiting = True
        while waiting:
            thread.join(thresholds.POLL)
            waiting = thread.is_alive()
            reached = limits(self.grown())
            if reached:
                self.end()
                raise Ended(reached)
        if not answers:
            code = self._process.wait()
            how = f"with exit status {code}"
            if code < 0:
                how = f"by {signal.Signals(-code).name}"
            raise Died(f"the process that computed it ended {how}")
        return answers[0]

    def _exchange(self, message: tuple, answers: list) -> None:
        try:
            examiner.send(self._process.stdin, message)
            answers.append(examiner.receive(self._process.stdout))
        except (OSError, EOFError, ValueError):  # it has died
            pass

    def ready(self, limits: Callable[[float], str]) -> None:
        """Waits until it can compute, without anything of another examination; its memory is
        counted from here. limits and what is raised: as of `ask`."""
        if self.base is None:
            self.ask(("forget",), limits)
            self.base = self._bytes()

    def grown(self) -> float:
        return 0.0 if self.base is None else self._bytes() - self.base

    def _bytes(self) -> float:
        resident = memory_of.resident(self._process.pid)
        return math.nan if resident is None else resident  # it has died

    def end(self) -> None:
        """Ends it, and waits until it has."""
        self._process.kill()
        self._process.wait()
        for file in filter(None, (self._process.stdin, self._process.stdout)):
            with suppress(OSError):  # what was not read yet
                file.close()


@lru_cache(maxsize=1)
def spare() -> list[Child]:
    """The examiner that the last examination in this process has left: it ends by itself soon. To
    import TensorFlow takes longer than most examinations."""
    return []


def acquire() -> Child:
    """An examiner, the one of the last examination if it is still there."""
    settings = _settings()
    while spare():
        child = spare().pop()
        child.base = None
        if child.settings != settings:
            child.end()
            continue
        with suppress(Ended):
            child.ready(lambda grown: "")
            return child
    return Child(settings)


def release(child: Child) -> None:
    if child.base is None or child.grown() > thresholds.IDLE_BYTES or spare():
        child.end()
        return
    with suppress(Ended):
        child.ask(("rest",), lambda grown: "")
        spare().append(child)


def _settings() -> str:
    """Whom an examiner serves and, besides the environment, what decides how TensorFlow computes:
    as JSON."""
    threads = tf.config.threading
    return json.dumps(
        {
            "parent": os.getpid(),
            "threads": [
                threads.get_inter_op_parallelism_threads(),
                threads.get_intra_op_parallelism_threads(),
            ],
            "optimizer": tf.config.optimizer.get_experimental_options(),
            "jit": tf.config.optimizer.get_jit(),
            "deterministic": config.is_op_determinism_enabled(),
        }
    )
