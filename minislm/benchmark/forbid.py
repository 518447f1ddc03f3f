"""Take AMX away from this process, so that libraries behave as on a processor without it."""

from __future__ import annotations

import ctypes
import platform
import struct
import sys

from minislm.errors import UnsupportedError

ARCH_PRCTL, REQUEST_TILES = 158, 0x1023
NO_NEW_PRIVILEGES, SET_FILTER, FILTER_MODE = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # the latter: error number 1, not permitted


def forbid_amx() -> None:
    """Let the system refuse this process the state of tiles, which every library asks for before it uses AMX.

    Raises
    ------
    UnsupportedError
        Code ``cannot_forbid_amx``: it is not Linux on x86-64, or the system takes no filter.
    """
    # Linux, "Seccomp BPF" (Documentation/userspace-api/seccomp_filter.rst): words of the call's record are the number
    # of the call, at 0, and the low half of its first argument, at 16.
    program = [
        (LOAD, 0, 0, 0),
        (EQUAL, 0, 3, ARCH_PRCTL),
        (LOAD, 0, 0, 16),
        (EQUAL, 0, 1, REQUEST_TILES),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ]
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        raise UnsupportedError("cannot_forbid_amx", "AMX can only be taken away on Linux and x86-64")
    lines = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    record = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(lines)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) or prctl(SET_FILTER, FILTER_MODE, record, 0, 0):
        raise UnsupportedError("cannot_forbid_amx", f"the system takes no filter (error {ctypes.get_errno()})")


def amx_in_use() -> bool:
    """Tell whether this process has been given the state of tiles, which only those ask for that use AMX.

    Returns
    -------
    bool
        False where that cannot be told.
    """
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        return False
    permitted = ctypes.c_uint64(0)
    failed = ctypes.CDLL(None).syscall(ARCH_PRCTL, 0x1022, ctypes.byref(permitted))
    return not failed and bool(permitted.value >> 18 & 1)
