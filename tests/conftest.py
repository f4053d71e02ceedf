"""Fixtures shared by all rooms: real data and reference numbers where they are at hand, one thread, no network."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
# the suite runs in as many processes as there are cores: more threads would only get in each other's way
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("GENECOMPASS_TEST_DATA", ROOT.parent / "shared"))


def _need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(
            f"real data not at hand: {path} (set GENECOMPASS_TEST_DATA to the folder that holds data/ and fixtures/)"
        )
    return path


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real cells, gene tables and networks; skips where it is not at hand."""
    return _need(SHARED / "data")


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Folder of numbers that the published code computed; skips where it is not at hand."""
    return _need(SHARED / "fixtures")
