"""Work ahead: after an answer, a thread prepares the settings for the sliders that move next."""

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
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="lab-warming", daemon=True).start()

    def prepare(self, settings: PostprocessSettings) -> None:
        """Prepare these settings in place of those before."""
        with self._changed:
            self._wanted = settings
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None)
                settings = self._wanted
            assert settings is not None

            def check(settings: PostprocessSettings = settings) -> None:
                if self._wanted is not settings:
                    raise DroppedError

            try:
                self._evaluation.warm(settings, check)
            except DroppedError:
                continue
            except InputError as error:  # the answer to a request says it, too
                log.debug("not prepared: %s", error)
            with self._changed:
                if self._wanted is settings:
                    self._wanted = None
