"""The numbers that decide what an autopsy keeps, tries and says: each with its unit and its reason.

None of them but LARGE_VALUE may decide which operation is named: tests/test_watch.py moves them.
"""

# --- watching ---
HOLD_EVERY = 50  # steps between two snapshots: one copies what has changed, reaching repeats them
KEPT_BATCHES = 256e6  # bytes of batches that are kept for that: beyond it snapshots come earlier
LARGE_VARIABLE = 250_000  # elements: a look reads all of a variable, so at larger ones it is rare
LOOK_EVERY = 10  # steps between two looks at large variables, unless the loss is lost
NUMBERS = 64  # variables of one element that are noted before each step, as learning rates are

# --- the way back ---
AT_ONCE = 1e9  # bytes of values that one run of the step returns; more are returned in portions
LARGE_VALUE = 1e10  # magnitude: what exceeds it has grown, and what it overflows in is no culprit
ELEMENTS = 16  # of a guilty operation that are traced to their rows: each costs several runs
ROWS = 32  # of one weight that are named: what was computed from more is no row's fault
ITERATIONS = 10_000  # of a loop that are followed at most: each costs a run
ROOT_WITHIN = 12  # operations between a quotient and the root that its denominator comes from

# --- the examination's process ---
SECONDS = 300.0  # that an examination takes at most, unless told otherwise
SHARE = 0.5  # of the memory that is free, which it takes at most, unless told otherwise
LIVES = 4  # processes that one examination may cost: what ends so many ends the next too
POLL = 0.02  # seconds between two looks at the time and the memory
IDLE_BYTES = 5e8  # a process that has grown by more is not kept for the next examination

# --- the text ---
SHOWN = 5  # examples, rows, operations that the text lists; the JSON has all
