"""The thread pool under the compiled kernels: forks, many callers, errors; and the choice of instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

runtime = pytest.importorskip("minislm.kernels.runtime_cython")
activation = pytest.importorskip("minislm.kernels.activation_cython")

X = np.linspace(-5.0, 5.0, 300_001, dtype=np.float32)


def test_a_shared_task_counts():
    before = runtime.tasks_shared()
    activation.gelu(X, threads=1)
    activation.gelu(X[:100], threads=2)
    assert runtime.tasks_shared() == before
    activation.gelu(X, threads=2)
    assert runtime.tasks_shared() == before + 1


def test_many_callers_at_once():
    expected, _ = activation.gelu(X)
    failures = []

    def call():
        for number in (1, 2, 3, 8) * 5:
            if not np.array_equal(activation.gelu(X, threads=number)[0], expected):
                failures.append(number)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_a_forked_child_has_helpers_of_its_own():
    code = """
import os, sys
import numpy as np
from minislm.kernels import activation_cython, runtime_cython
x = np.linspace(-5.0, 5.0, 300_001, dtype=np.float32)
expected, _ = activation_cython.gelu(x, threads=3)
for _ in range(5):
    child = os.fork()
    if not child:
        before = runtime_cython.tasks_shared()
        right = np.array_equal(activation_cython.gelu(x, threads=3)[0], expected)
        os._exit(0 if right and runtime_cython.tasks_shared() == before + 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert np.array_equal(activation_cython.gelu(x, threads=3)[0], expected)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_stages_of_one_pass_wait_for_each_other():
    for number in (1, 2, 3, 8, 300):
        assert runtime.barrier_ns(number, 1000, 50) > -1000


def test_a_fork_beside_a_running_pass():
    code = """
import os, threading
import numpy as np
from minislm.kernels import activation_cython
x = np.linspace(-5.0, 5.0, 3_000_001, dtype=np.float32)
expected, _ = activation_cython.gelu(x, threads=2)
stop = threading.Event()
def busy():
    while not stop.is_set():
        activation_cython.gelu(x, threads=2)
other = threading.Thread(target=busy)
other.start()
for _ in range(20):
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(activation_cython.gelu(x, threads=2)[0], expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
other.join()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_instruction_sets():
    from minislm.kernels import instruction_set

    before = instruction_set()
    assert before.available[0] == "baseline"
    assert before.chosen in before.available
    try:
        for name in before.available:
            assert instruction_set(name).chosen == name
        with pytest.raises(ValueError, match="not available"):
            instruction_set("mmx")
    finally:
        instruction_set(before.chosen)


def test_the_environment_chooses_the_instruction_set():
    code = "from minislm.kernels import instruction_set; print(instruction_set().chosen)"
    for name in runtime.AVAILABLE:
        environment = {**os.environ, "MINISLM_INSTRUCTION_SET": name}
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == name
