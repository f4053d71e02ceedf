"""The oldest supported transformers is stated in one place, and these tests pass with it.

The second test needs a Python that has that version: ``GENECOMPASS_OLDEST_PYTHON=.venv-oldest/bin/python``.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OLDEST = "5.0"
# what differs most between versions: saving, loading, recorded outputs, masks, tying
FILES = ("test_reference.py", "test_saving.py", "test_folding.py", "test_training.py", "test_properties.py")


def test_pyproject_states_it():
    stated = re.search(r'"transformers>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert stated is not None
    assert stated[1] == OLDEST


@pytest.mark.slow
def test_the_network_works_with_it():
    python = os.environ.get("GENECOMPASS_OLDEST_PYTHON")
    if not python:
        pytest.skip(f"set GENECOMPASS_OLDEST_PYTHON to a Python that has transformers {OLDEST}")
    version = subprocess.run(
        [python, "-c", "import transformers; print(transformers.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert version.stdout.strip().startswith(OLDEST + ".")
    files = [str(Path(__file__).parent / name) for name in FILES]
    done = subprocess.run(
        [python, "-m", "pytest", "-p", "no:cacheprovider", "-k", "not flex", *files],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:]
