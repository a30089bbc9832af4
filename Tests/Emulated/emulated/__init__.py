"""The boards' programs under qemu-user, in the laboratory of Tests/Interop.

boards      the boards, and how the program of each is run here
selection   which of the interoperability tests each board runs
guest       what the emulated program has mapped, and its heap
traced      the program with its system calls written down
runner      a process for each board, some at a time, a line for each test
"""
