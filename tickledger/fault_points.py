"""Named points of the landing path at which the fault tests can kill the stream, or lose an answer.

Nothing is armed unless TICKLEDGER_FAULT is set when the stream starts: `point:victim:visit`, such as
`before_commit:both:3` for the third time that the point is reached. Victims: `jvm`, `python`, `both`, and `answer`,
which drops the answer to a COMMIT that MySQL has done. Before anything happens, a line that says the point was reached
is appended to the file that TICKLEDGER_FAULT_LOG names, so that a test counts only faults that were really met. (What
is printed travels through the JVM and dies with it.)
"""

import os
import signal
from pathlib import Path

from tickledger.errors import ConfigurationError, StoreUnavailable

VARIABLE = "TICKLEDGER_FAULT"
LOG_VARIABLE = "TICKLEDGER_FAULT_LOG"
#: In the order in which a batch meets them.
POINTS = ("before_cassandra", "between_stores", "before_commit", "after_commit", "before_check", "after_check")
VICTIMS = ("jvm", "python", "both", "answer")

_armed: tuple[str, str] | None = None
_visits_left = 0


def arm() -> None:
    """Arm what TICKLEDGER_FAULT names, if anything. Raises ConfigurationError if it makes no sense."""
    global _armed, _visits_left
    value = os.environ.get(VARIABLE)
    if not value:
        return
    point, victim, visit = (*value.split(":"), "", "")[:3]
    if point not in POINTS or victim not in VICTIMS or not visit.isdigit():
        raise ConfigurationError(
            f"{VARIABLE} is {value!r}; it should be one of {', '.join(POINTS)}, then :{'|'.join(VICTIMS)}:visit"
        )
    _armed, _visits_left = (point, victim), int(visit)


def reached(point: str) -> None:
    """Do what is armed for this point, once; nothing otherwise."""
    global _armed, _visits_left
    if _armed is None or _armed[0] != point:
        return
    _visits_left -= 1
    if _visits_left > 0:
        return
    victim, _armed = _armed[1], None
    with Path(os.environ.get(LOG_VARIABLE) or os.devnull).open("a") as log:
        log.write(f"{point} reached, victim {victim}\n")
    if victim == "answer":
        raise StoreUnavailable("the answer to COMMIT was lost (a fault test)")
    if victim in ("jvm", "both"):
        # Under spark-submit the JVM is the parent of the driver's Python.
        os.kill(os.getppid(), signal.SIGKILL)
    if victim in ("python", "both"):
        os.kill(os.getpid(), signal.SIGKILL)
