import hashlib

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raysandbox.ops.digest_kernels import LANES, md5_prefixes, scratch, sha1_prefixes

EDGES = [b"a" * length for length in (0, 1, 3, 4, 54, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1000)]


def prefixes(function, messages):
    data = np.frombuffer(b"".join(messages), np.uint8)
    bounds = np.concatenate(([0], np.cumsum([len(message) for message in messages], dtype=np.int64)))
    out = np.zeros(len(messages), np.uint64)
    function(data, bounds[:-1], bounds[1:], scratch(), out)
    return out.tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=LANES))
@example(EDGES)
def test_equal_to_hashlib(messages):
    sha1 = [int.from_bytes(hashlib.sha1(message).digest()[:4], "little") for message in messages]
    md5 = [int.from_bytes(hashlib.md5(message).digest()[:8], "big") for message in messages]
    assert prefixes(sha1_prefixes, messages) == sha1
    assert prefixes(md5_prefixes, messages) == md5
