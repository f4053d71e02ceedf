"""How far long work is: a bar on a terminal, now and then a line in a log file."""

from typing import Any

from tqdm import tqdm

# seconds between two lines where there is no terminal
_EVERY = 30


class Progress(tqdm):
    """tqdm that shows nothing for the first second, and writes whole lines, few of them, where there is no terminal.

    Parameters
    ----------
    *args, **options
        As for `tqdm.tqdm`.

    Examples
    --------
    >>> sum(Progress(range(4), disable=True))
    6
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"delay": 1, **options})
        if not self.disable and not _is_terminal(self.fp):
            self.mininterval = self.maxinterval = _EVERY
            self.dynamic_miniters = True

    @staticmethod
    def status_printer(file: Any) -> Any:
        """What draws: over the last state on a terminal, below it in a file."""
        if _is_terminal(file):
            return tqdm.status_printer(file)

        def line(text: str) -> None:
            if text.strip():
                file.write(f"{text}\n")
                file.flush()

        return line

    def close(self) -> None:
        """Draw the last state; in a file only if any was drawn before it."""
        if self.disable or _is_terminal(self.fp):
            super().close()
            return
        self.disable = True
        type(self)._decr_instances(self)  # type: ignore[attr-defined]
        if self.last_print_t >= self.start_t + float(self.delay or 0):
            self.display()


def _is_terminal(file: Any) -> bool:
    return bool(getattr(file, "isatty", lambda: False)())
