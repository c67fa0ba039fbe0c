"""The parent of Spark's Python workers: PySpark's own, without a traceback for each worker that Spark lets go.

Spark closes a worker's socket after an idle minute, and as a stream stops. The worker then cannot say goodbye.
"""

import os
import socket

from pyspark import daemon

_worker = daemon.worker


def worker(sock: socket.socket, authenticated: bool) -> int:
    """Serve Spark's tasks; the exit code, as of `pyspark.daemon.worker`. Ends the process if Spark hangs up."""
    try:
        return _worker(sock, authenticated)
    except BrokenPipeError:
        # At once: from Python 3.13 on the file that cannot be flushed would say so when it goes.
        os._exit(1)


if __name__ == "__main__":
    daemon.worker = worker
    daemon.manager()
