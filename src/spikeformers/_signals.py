"""Signals that end a run: a scheduler's termination and warning, and the end of a terminal. What was saved is kept."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)  # Windows has one


class Signals:
    """Makes of the first of SIGNALS that comes a KeyboardInterrupt, and lets a second one end the process at once.

    `received` is what came. Whom the process forks, such as a data loader's workers, ignores them: it ends with the run. A signal that
    was ignored from the start stays so, as SIGHUP under nohup.
    """

    def __init__(self):
        self.received: int | None = None
        self.process = os.getpid()
        self.heard = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]

    def listen(self):
        """From here on, whatever listened before; in the main thread only, as Python has it."""
        if threading.current_thread() is threading.main_thread():
            for each in self.heard:
                signal.signal(each, self._stop)

    def _stop(self, signum, frame):
        if os.getpid() != self.process:
            return
        if self.received is not None:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(self.process, signum)
            return
        self.received = signum
        raise KeyboardInterrupt


@contextmanager
def listening() -> Iterator[Signals]:
    """`Signals` that are listened to inside; a KeyboardInterrupt that leaves the block has the `signal` that it came from."""
    before = {each: signal.getsignal(each) for each in SIGNALS}
    signals = Signals()
    signals.listen()
    try:
        yield signals
    except KeyboardInterrupt as error:
        error.signal = signals.received or signal.SIGINT
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            for each, handler in before.items():
                if handler is not None:
                    signal.signal(each, handler)
