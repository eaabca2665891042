"""What a placement does at a zero row, against the closed forms of its derivative."""

from functools import partial

import numpy as np
import pytest

from zeronorm import numerics, similarity, singularity

CLOSED = {  # norm of the derivative at b = 0 beside |a| = 1, for epsilon e, by hand
    "clamp_product": lambda e: 1 / e,
    "add_to_product": lambda e: 1 / e,
    "add_to_norms": lambda e: 1 / ((1 + e) * e),
    "clamp_norms": lambda e: 1 / e,
    "add_to_squares": lambda e: 1 / np.sqrt((1 + e) * e),
    "clamp_squares": lambda e: 1 / np.sqrt(e),
    "keras_normalize": lambda e: 1 / e,
}
AFTER_THE_ROOT = set(CLOSED) - {"add_to_squares", "clamp_squares"}


def measured(name, epsilon, used):
    function = getattr(similarity, name)
    placement = partial(function, epsilon=epsilon) if epsilon else function

    def bound(a, b):
        return placement(a, b, used)

    return singularity.measure(bound, used)


@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
@pytest.mark.parametrize("epsilon", [1e-7, 1e-12])
@pytest.mark.parametrize("name", CLOSED)
def test_derivative_and_gradient(name, epsilon, used):
    found = measured(name, epsilon, used)
    assert found.derivative == pytest.approx(CLOSED[name](epsilon), rel=1e-4)
    if name in AFTER_THE_ROOT and used.name != "kernels":
        assert np.isnan(found.gradient)
    else:
        assert found.gradient == pytest.approx(found.derivative, rel=1e-4)
    assert np.isinf(found.gradient_tiny) == (name in ("add_to_product", "add_to_norms"))


@pytest.mark.parametrize("used", numerics.BY_NAME.values(), ids=numerics.BY_NAME)
def test_no_derivative_where_the_value_jumps(used):
    """cos jumps at a zero row; double_where says 0 there, which no limit supports."""
    for name in ("unguarded", "divide_no_nan", "single_where", "double_where"):
        assert measured(name, None, used).derivative is None
    assert measured("double_where", None, used).gradient == 0
    assert np.isnan(measured("single_where", None, used).gradient)


def test_small_rows_are_scored_too_low():
    """Where the cosine is 0.6: e inside the root costs all of it at norm 1e-6, e after the root
    almost nothing."""
    assert measured("add_to_squares", 1e-7, numerics.KERNELS).scores[1e-6] == pytest.approx(
        0.6 / 1e6 / 1e-7**0.5, rel=1e-3
    )
    assert measured("add_to_squares", 1e-12, numerics.KERNELS).scores[1e-6] == pytest.approx(
        0.6 / 2**0.5, rel=1e-4
    )
    assert measured("clamp_product", 1e-7, numerics.KERNELS).scores[1e-6] == pytest.approx(
        0.6, rel=1e-6
    )
    assert measured("add_to_product", 1e-7, numerics.KERNELS).scores[1e-6] == pytest.approx(
        0.6 / 1.1, rel=1e-6
    )
