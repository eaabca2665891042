"""The autopsy of any Keras model's training step: which operation, line, example and row made a
weight NaN or infinite.

It stands on TensorFlow and what TensorFlow brings, and knows nothing of the rest of this project.
README.md beside this file says how it works.
"""

from zeronorm.autopsy import startup

with startup.hushed():
    import tensorflow  # noqa: F401

from zeronorm.autopsy.blame import Guilty
from zeronorm.autopsy.capsule import CapsuleError
from zeronorm.autopsy.cures import Cure
from zeronorm.autopsy.report import Report
from zeronorm.autopsy.watch import Autopsy, examine, replay

__all__ = ["Autopsy", "CapsuleError", "Cure", "Guilty", "Report", "examine", "replay"]
