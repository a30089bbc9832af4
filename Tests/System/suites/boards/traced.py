#!/usr/bin/python3
"""traced.py EMULATOR WORDS...: start qemu-user and log the program's system calls to $TRACE.

qemu 7.2 aborts with an assertion when it logs a successful TUNGETDEVNETNS. A filter that the
emulator inherits therefore makes that call fail, as it does on kernels that do not know it.
"""

import ctypes
import os
import platform
import struct
import sys

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
ENOTTY = 25
TUNGETDEVNETNS = 0x54E3
IOCTL = {"x86_64": 16, "aarch64": 29, "riscv64": 29}
# Of struct seccomp_data: the number of the call, and the lower half of its second argument.
NUMBER, REQUEST = 0, 24
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of classic BPF


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def refuse_namespace_of_tun() -> None:
    instructions = (
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 3, IOCTL[platform.machine()]),
        (LOAD, 0, 0, REQUEST),
        (EQUAL, 0, 1, TUNGETDEVNETNS),
        (RETURN, 0, 0, REFUSE | ENOTTY),
        (RETURN, 0, 0, ALLOW),
    )
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    trace = os.environ.pop("TRACE", "")
    refuse_namespace_of_tun()
    emulator, *words = sys.argv[1:]
    os.execv(emulator, [emulator, *(["-strace", "-D", trace] if trace else []), *words])
