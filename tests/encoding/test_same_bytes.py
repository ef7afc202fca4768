# SPDX-License-Identifier: MIT
"""The same seed gives the same bytes, run by run and version by version of this code (see ``digests.py``)."""

import json
import os
import subprocess
import sys

import digests
import pytest


@pytest.fixture(scope="module")
def found():
    """Digests made in a process of its own, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, digests.__file__, "--print"], capture_output=True, text=True, env=environment, check=True
    )
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("case", digests.CASES)
def test_bytes_are_those_recorded(case, found):
    known = json.loads(digests.RECORDED.read_text()).get(digests.machine(), {})
    if case not in known:
        pytest.skip(f"no digest is recorded for {digests.machine()}; tests/digests.py records them")
    assert found[case] == known[case]
