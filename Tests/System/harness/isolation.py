"""Runs a suite in its own namespaces, so that nothing outlives it.

The mounts, process ids and network of a run are private. When the run ends for any reason, even
SIGKILL, the kernel removes the processes, then the network namespaces, their interfaces, /run with
its sockets, and /var/lib. No cleanup code is needed that a crash could skip.
"""

import ctypes
import os
import pathlib
import signal
from collections.abc import Callable

CLONE_NEWNS, CLONE_NEWIPC = 0x00020000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


class IsolationError(Exception):
    """Something that every run needs is missing; the text names it."""


def check(result: int, what: str) -> None:
    """Turn the -1 of a libc call into an OSError with the call's name."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int) -> None:
    check(
        libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None),
        f"mount {target}",
    )


def run_isolated(body: Callable[[], int]) -> int:
    """The exit status of `body`, run in private namespaces. Raises IsolationError."""
    if os.geteuid() != 0:
        raise IsolationError("network namespaces need root")
    if not os.path.exists("/dev/net/tun"):
        raise IsolationError("no /dev/net/tun")
    try:
        check(libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC), "unshare")
    except OSError as error:
        raise IsolationError(f"no namespaces: {error.strerror}") from error
    # A signal that is ignored, as under nohup, would stay ignored in the programs under test.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        be_first_process(body)
    return wait_for(child)


def wait_for(child: int) -> int:
    """Wait for the first process; a signal ends it, and with it all processes of the run."""

    def end(number, _frame):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def be_first_process(body: Callable[[], int]) -> None:
    """Process 1 of the namespaces: prepares them, runs `body` in a child, reaps. No return."""
    # A session of its own: Ctrl-C reaches only the parent, which ends this process by SIGKILL.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        prepare_mounts()
        worker = os.fork()
        if worker == 0:
            run_worker(body)
        status = None
        while status is None:
            pid, ended = os.wait()
            if pid == worker:
                status = os.waitstatus_to_exitcode(ended)
        os._exit(status if status >= 0 else 128 - status)
    except BaseException as error:  # nothing may propagate into the caller's stack
        os.write(2, f"isolation: {error}\n".encode())
        os._exit(1)


def prepare_mounts() -> None:
    """Private /proc for the private process ids, and an empty /run and /var/lib.

    The empty /run holds the UAPI sockets and the names of the namespaces; it also keeps wg-quick
    away from the resolver and service manager of the host.
    """
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV)
    # Culvert keeps its handshake timestamps in /var/lib/culvert.
    mount("tmpfs", "/var/lib", "tmpfs", MS_NOSUID | MS_NODEV)
    if not pathlib.Path("/var/run").is_symlink():
        mount("/run", "/var/run", "none", 0x1000)  # MS_BIND
    for folder in ("/run/netns", "/run/lock", "/run/interop"):
        os.makedirs(folder)


def run_worker(body: Callable[[], int]) -> None:
    """Run `body` and exit with its status. Does not return."""
    status = 1
    try:
        status = body()
    except SystemExit as exit_request:
        status = exit_request.code if isinstance(exit_request.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os.sys.stdout.flush()
        os.sys.stderr.flush()
        os._exit(status)
