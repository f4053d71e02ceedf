"""Whatever goes wrong: one line, a code that is not zero, no trace; an interrupted verb says how it goes on."""

import os
import signal
import subprocess
import sys

import pytest

from genecompass.cli import main

_RAISE = """
import genecompass.commands.verify as verb, genecompass.cli, sys, os, signal
def boom(*a, **k):
    {act}
import genecompass.model_cards.verify as real
real.verify_source = boom
genecompass.cli.main(["verify", "x"])
"""


def run(act, **environment):
    code = _RAISE.format(act=act)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("act", "code", "words"),
    [
        ("raise ZeroDivisionError('division by zero')", 1, "ZeroDivisionError: division by zero"),
        ("raise KeyError('obs')", 1, "KeyError: 'obs'"),
        ("raise MemoryError", 1, "out of memory"),
        ("raise EOFError('Compressed file ended')", 2, "cut short"),
        ("raise RecursionError('deep')", 1, "RecursionError: deep"),
        ("raise ValueError('bad')", 2, "error: bad"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "terminated: nothing half-finished was left"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "interrupted: nothing half-finished was left"),
    ],
)
def test_one_line(act, code, words):
    done = run(act)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_the_trace_is_there_for_who_asks():
    assert "Traceback" in run("raise KeyError('obs')", GENECOMPASS_DEBUG="1").stderr


def test_the_handler_of_whoever_calls_is_put_back(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert signal.getsignal(signal.SIGTERM) is before
