"""What every test gets: repeatable examples, a seeded generator, the shape checker, and the backend put back."""

from __future__ import annotations

import signal
import zlib

import numpy as np
import pytest
from hypothesis import settings

from minislm.dispatch import TIERS, backend, threads
from minislm.testing.shapes import checked_shapes

settings.register_profile("minislm", derandomize=True, deadline=None, database=None)
settings.load_profile("minislm")
signal.signal(signal.SIGINT, signal.default_int_handler)  # which what runs in a shell's background ignores


def pytest_addoption(parser):
    """Add ``--tier``: the fastest tier that the tests may use."""
    parser.addoption(
        "--tier", choices=TIERS, default=TIERS[-1], help="the fastest tier that runs (default: %(default)s)"
    )


@pytest.fixture
def rng(request):
    """Return a generator seeded with the name of the test."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def _shapes():
    """Check the shape suffixes of every function of the package that the test calls."""
    with checked_shapes():
        yield


@pytest.fixture(autouse=True)
def _backend(request):
    """Allow the tier asked for, and put it and the number of threads back after the test."""
    before = threads()
    with backend(request.config.getoption("--tier")):
        yield
    threads(before)
