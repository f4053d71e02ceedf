"""Progress: whole lines, few of them, in a log file; nothing of work that is done at once."""

import io

from genecompass.tokenization.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_file_gets_lines_and_no_carriage_returns():
    log = io.StringIO()
    bar = Progress(total=50, file=log, delay=0)
    for _ in range(50):
        bar.update()
    bar.close()
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue()
    assert 1 <= len(lines) <= 3
    assert lines[-1].startswith("100%")


def test_a_terminal_gets_a_bar():
    shown = Terminal()
    bar = Progress(total=3, file=shown, delay=0, mininterval=0)
    bar.update(3)
    bar.close()
    assert "\r" in shown.getvalue()


def test_short_work_is_silent():
    log = io.StringIO()
    assert list(Progress(range(3), file=log)) == [0, 1, 2]
    assert log.getvalue() == ""
