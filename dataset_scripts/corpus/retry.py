"""Bounded patience with storage: a network that fails for a moment does not end a training run of days."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")

# No second try will make these go away.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True)
class Patience:
    """How often, and after what waits, a failed read is tried again.

    Parameters
    ----------
    attempts
        Tries in all.
    wait
        Seconds before the second try; doubles from try to try, up to a minute.

    Examples
    --------
    >>> Patience(attempts=2, wait=0).of(lambda: 42, "the answer")
    42
    """

    attempts: int = 6
    wait: float = 1.0

    def of(self, read: Callable[[], T], what: str, *, between: Callable[[], None] | None = None) -> T:
        """Call `read` until it succeeds.

        Parameters
        ----------
        read
            What to do.
        what
            What is read, for the log and the error.
        between
            Called before every further try, to drop a broken connection.

        Raises
        ------
        OSError
            The last failure, when patience is at an end; at once for what waiting cannot mend.
        """
        for attempt in range(1, self.attempts + 1):
            try:
                return read()
            except _FINAL:
                raise
            except (OSError, TimeoutError, EOFError) as error:
                if attempt == self.attempts:
                    raise OSError(f"{what}: cannot be read after {attempt} tries ({_short(error)})") from error
                wait = min(self.wait * 2 ** (attempt - 1), 60.0)
                logger.warning("%s: try %d failed (%s); next in %.1f s", what, attempt, _short(error), wait)
                if between is not None:
                    between()
                time.sleep(wait)
        raise ValueError("attempts must be at least 1")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
