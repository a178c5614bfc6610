from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysandbox.ops.union_find import originals_of_linked, originals_of_near


def originals(count, linked):
    """For each member the smallest of its connected component, by repeated search."""
    group = list(range(count))
    changed = True
    while changed:
        changed = False
        for one, other in linked:
            least = min(group[one], group[other])
            changed |= group[one] != group[other]
            group[one] = group[other] = least
    return group


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(st.integers(0, 12), min_size=n, max_size=n), min_size=1)))
def test_linked_rows(rows):
    # Values far apart, so that they fill the hash table unevenly.
    bands = np.array(rows, np.uint64) << np.uint64(40)
    linked = [
        (one, other)
        for one, other in combinations(range(len(rows)), 2)
        if any(a == b for a, b in zip(rows[one], rows[other], strict=True))
    ]
    assert originals_of_linked(bands).tolist() == originals(len(rows), linked)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 63), max_size=6), min_size=1, max_size=25), st.integers(1, 6), st.integers(1, 4)
)
def test_near_values(flips, distance, more):
    values = [sum(1 << bit for bit in set(bits)) for bits in flips]
    linked = [
        (one, other)
        for one, other in combinations(range(len(values)), 2)
        if (values[one] ^ values[other]).bit_count() <= distance
    ]
    found = originals_of_near(np.array(values, np.uint64), distance + more, distance)
    assert found.tolist() == originals(len(values), linked)


@pytest.mark.parametrize("function", [originals_of_linked, lambda bands: originals_of_near(bands[:, 0], 6, 4)])
def test_no_rows(function):
    assert function(np.zeros((0, 3), np.uint64)).tolist() == []
