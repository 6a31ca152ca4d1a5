"""What an adapter does that it must not do: said once, loudly."""

import logging
from collections.abc import Collection

from pyscopg2.core.diagnosis import log
from pyscopg2.core.diagnosis.redaction import describe


class Complaints:
    """Of one host's monitor, which goes on all the same."""

    def __init__(self, address: str, secrets: Collection[str]) -> None:
        self._address = address
        self._secrets = secrets
        self._told = False

    def describe(self, exc: BaseException) -> str:
        """In one line, without the host's secrets."""
        return describe(exc, self._secrets)

    def say(self, exc: BaseException) -> None:
        """Of an adapter that raised what it should not have."""
        if not self._told:
            self._told = True
            text = "the monitor of %s goes on, but met: %s"
            log.say(
                logging.ERROR, text, self._address, self.describe(exc), exc=exc, host=self._address
            )
