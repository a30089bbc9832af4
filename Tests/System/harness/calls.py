"""System calls that fail, as on an old kernel."""

import ctypes
import struct

from harness import isolation

CLOSE_RANGE = 436  # on every architecture

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # a 32-bit word; with a constant
NUMBER = 0  # the offset of the call's number
ALLOW, ERROR = 0x7FFF0000, 0x00050000


def refuse_call(number: int, error: int) -> None:
    """From now on, this system call fails in this process and its children (seccomp(2)).

    For `preexec_fn`: it cannot be undone.
    """
    steps = [
        (LOAD, 0, 0, NUMBER),
        (JUMP_IF_EQUAL, 0, 1, number),
        (RETURN, 0, 0, ERROR | error),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    libc = isolation.libc
    isolation.check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    isolation.check(libc.prctl(PR_SET_SECCOMP, MODE_FILTER, program, 0, 0), "seccomp")
