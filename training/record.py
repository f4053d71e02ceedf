"""What a training run says about itself."""

import os
import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """The command that runs, without local folders."""
    return shlex.join(_without_folder(part) for part in sys.argv)


def _without_folder(argument: str) -> str:
    """The argument with an absolute path, alone or after ``key=``, cut down to its last part."""
    key, equals, value = argument.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if os.path.isabs(value) else argument
