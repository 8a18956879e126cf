"""Stops one thread of another process, as a kernel that never returns would; its other threads run on."""

import ctypes
import os
import time

import psutil

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17  # of ptrace(2)
_ALL_THREADS = 0x40000000  # __WALL of waitpid(2)


def busiest_thread(process: psutil.Process) -> int:
    """Of a worker replica that has worked: its engine's."""
    return max(process.threads(), key=lambda thread: thread.user_time + thread.system_time).id


def freeze(thread: int, seconds: float) -> bool:
    """Hold a thread for so long; blocks. False when it is gone, or may not be traced."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(_SEIZE, thread, None, None) != 0:
        return False
    libc.ptrace(_INTERRUPT, thread, None, None)
    os.waitpid(thread, _ALL_THREADS)
    time.sleep(seconds)
    libc.ptrace(_DETACH, thread, None, None)
    return True
