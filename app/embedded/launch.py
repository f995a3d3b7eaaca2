"""Becomes another program, after tying its life to its parent's and dropping root.

Run as a script (`python -I -S launch.py …`), never imported: it works between fork and exec, where code of a
threaded parent must not run, and it needs nothing but the standard library.

The order matters: the kernel clears the parent-death signal when credentials change, so it is set last, and a
parent that died before that moment is noticed by its process id (prctl(2), capabilities(7)).
"""

import argparse
import ctypes
import os
import struct
import sys

REFUSED = 77
"""Exit code of a launch that did not reach its exec; standard error has the reason."""

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
LINUX = sys.platform == "linux"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--signal", type=int, default=0)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--reach", action="append", default=[])
    split = sys.argv.index("--")
    args, program = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    try:
        if args.uid is not None:
            become(args.uid, args.gid, args.reach)
        if args.signal and LINUX:
            prctl(PR_SET_PDEATHSIG, args.signal)
            if os.getppid() != args.parent:
                refuse("the supervisor is gone")
        os.execv(program[0], program)  # noqa: S606 - no shell is wanted
    except OSError as error:
        refuse(f"{program[0]}: {error}")


def become(uid: int, gid: int, reach: list[str]) -> None:
    """Drop root permanently, but keep the right to pass private folders if `reach` is in one."""
    if LINUX:
        prctl(PR_SET_KEEPCAPS, 1)
    try:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    except OSError as error:
        refuse(f"root may not become user {uid} here ({error}): start as an ordinary user")
    # access(2) looks at the ordinary permissions alone, whatever capabilities are still held.
    barred = [path for path in reach if not os.access(path, os.R_OK | os.X_OK)]
    if not LINUX:
        if barred:
            refuse_unreachable(barred[0], uid)
        return
    # The first only reads and passes; the second, which some containers leave to root alone, also writes.
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if barred else ():
        try:
            set_capabilities(1 << capability)
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)
        except OSError:
            continue
        return
    set_capabilities(0)
    if barred:
        refuse_unreachable(barred[0], uid)


def set_capabilities(mask: int) -> None:
    """The effective, permitted and inheritable set become `mask`; only ever less than before."""
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    data = struct.pack("=6I", mask, mask, mask, 0, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def prctl(option: int, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [*arguments, 0, 0, 0, 0][:4]
    if libc.prctl(option, *(ctypes.c_ulong(argument) for argument in padded)) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def refuse_unreachable(path: str, uid: int) -> None:
    refuse(
        f"PostgreSQL does not run as root, and user {uid}, whom it runs as instead, cannot reach {path}: "
        "move it out of the private folder (--data-dir), or start as an ordinary user"
    )


def refuse(reason: str) -> None:
    sys.stderr.write(f"launch: {reason}\n")
    sys.stderr.flush()
    os._exit(REFUSED)


if __name__ == "__main__":
    main()
