"""Work ahead: a thread evaluates the settings at the start, and prepares for the next moves."""

from __future__ import annotations

import logging
import threading

from src.errors import InputError
from src.lab.evaluation import Evaluation
from src.lab.requests import DroppedError
from src.postprocess.settings import PostprocessSettings

log = logging.getLogger(__name__)


class Warmer:
    """A thread that prepares the settings asked for last; newer ones take their place.

    Args:
        evaluation: What is prepared.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._wanted: PostprocessSettings | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="lab-warming", daemon=True)
        self._thread.start()

    def prepare(self, settings: PostprocessSettings) -> None:
        """Prepare these settings in place of those before."""
        with self._changed:
            self._wanted = settings
            self._changed.notify()

    def close(self) -> None:
        """End the thread, after the image that it is at."""
        with self._changed:
            self._wanted, self._is_closed = None, True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None or self._is_closed)
                settings = self._wanted
            if settings is None:
                return

            def check(settings: PostprocessSettings = settings) -> None:
                if self._wanted is not settings:
                    raise DroppedError

            try:
                self._evaluation.warm(settings, check)
            except DroppedError:
                continue
            except (InputError, OSError) as error:  # the answer to a request says it, too
                log.debug("not prepared: %s", error)
            with self._changed:
                if self._wanted is settings:
                    self._wanted = None
