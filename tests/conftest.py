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


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The demo, run once with very little training: its folder and what it found. Tests that use it share a worker."""
    pytest.importorskip("scanpy", reason="the demo's cells ship inside scanpy (extra: plots)")
    from genecompass.eval.demo import DemoOptions, run_demo

    said = []
    folder = tmp_path_factory.mktemp("demo") / "demo_output"
    options = DemoOptions(str(folder), steps=8, epochs=1, max_cells=260, max_length=96, null_genes=19)
    result = run_demo(options, said.append)
    return {"folder": folder, "result": result, "options": options, "said": said}
