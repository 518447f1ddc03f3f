"""Memory that steps free stays with the process."""

import resource
import subprocess
import sys

import pytest

from minislm.training.memory import keep_freed_memory

FAULTS = """
import resource
import numpy as np
from minislm.training.memory import keep_freed_memory

{call}
for step in range(20):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(2_000_000, np.float32) for _ in range(3)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call):
    """Page faults of ten steps in a fresh process."""
    found = subprocess.run([sys.executable, "-c", FAULTS.format(call=call)], capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="this C library cannot keep memory")
def test_steps_meet_no_new_pages():
    pages = 10 * 3 * 8_000_000 // resource.getpagesize()
    assert faults("keep_freed_memory()") < pages / 100
