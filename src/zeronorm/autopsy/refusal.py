"""Why a compiler refuses a step: the sentence that a person needs out of what TensorFlow says.

TensorFlow puts it among the graph's traceback, the node's name and the compiler's options; which of
them come, and in what order, depends on whether a kernel or XLA raises, in a graph or eagerly.
"""

import re
import textwrap

MOST = 240  # characters of a sentence
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Keras writes in some
UNKNOWN = re.compile(r"(\w+) \(No registered '\w+' OpKernel for XLA\w*")
BESIDE = re.compile(  # lines that say where, not why
    r"Graph execution error|Detected at node|File \"|Traceback \(most|Stack trace for op"
    r"|The op is created at|tf2xla conversion failed|\[\["
    r"|\d+ root error|\d+ successful operation|\d+ derived error"
)
NODE = re.compile(r"\{\{node ([^}]*)\}\}")
AROUND = re.compile(  # parts of a line that say where, not why
    r"\{\{function_node [^}]*\}\}|\[\[.*?\]\]|\[Op:[^\]]*\]( name:)?|\(\d+\)\s+[A-Z_]+:"
    r"|, node name: \S+|\s+Label values:.*"
)


def sentence(message: str) -> str:
    """The reason out of a message of a tf.errors.OpError: one line, which ends with a full stop."""
    message = COLOURS.sub("", message)
    unknown = list(dict.fromkeys(UNKNOWN.findall(message)))
    if unknown:
        return _unknown(unknown, message)
    # those quote source
    said = (line for line in message.splitlines() if not line.startswith("    "))
    said = (NODE.sub(r"\1", AROUND.sub("", line)).strip() for line in said)
    found = next((line for line in said if line and not BESIDE.match(line)), "it gives no reason")
    found = textwrap.shorten(found, MOST, placeholder=" ...")
    return found if found.endswith((".", "!", "?", "...")) else f"{found}."


def _unknown(kinds: list[str], message: str) -> str:
    """kinds: of operations that XLA cannot compile; what the step is given is one too."""
    if "DT_STRING" in message and set(kinds) <= {"_Arg", "_Retval"}:
        return "it takes no texts."
    operations = [kind for kind in kinds if kind not in ("_Arg", "_Retval")]
    return f"it has no kernel for {', '.join(operations or kinds)}."
