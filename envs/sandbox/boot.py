"""The first code that runs inside a sandbox: it sets the resource limits, then runs the program.

The interpreter gets this file as text, so it imports only the standard library, and little of it.
"""

import builtins
import os
import resource
import sys


def _start() -> None:
    source, started, seconds, memory, processes, file_size = map(int, sys.argv[1:7])
    with open(source, "rb") as file:
        program = file.read()
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_NPROC: processes,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    # Programs call these two, which `python -S` leaves out.
    vars(builtins).update(exit=sys.exit, quit=sys.exit)
    sys.argv[:] = ["program.py"]
    main = type(sys)("__main__")
    vars(main)["__builtins__"] = builtins
    sys.modules["__main__"] = main
    os.write(started, b"+")
    os.close(started)
    exec(compile(program, "program.py", "exec"), main.__dict__)


_start()
