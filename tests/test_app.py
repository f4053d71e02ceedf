"""The page in a real browser: upload, wait, see map and tables, delete a gene; a wrong file says what is wrong."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run"]
needs_app = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gradio", "matplotlib", "umap")),
    reason='the app is not installed: pip install "genecompass[app]"',
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="no browser to drive: needs Chromium on the PATH and pip install playwright",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random classifier, 120 cells of two kinds, and a file that is no AnnData."""
    import torch
    from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForSequenceClassification
    from genecompass.tokenization.gene_table import GeneTable
    from genecompass.tokenization.processing_genecompass import GeneCompassProcessor

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("app")
    symbols = [f"GENE{number}" for number in range(60)]
    genes = pd.DataFrame(
        {"gene_id": [f"ENSG{number:011d}" for number in range(60)], "symbol": symbols, "species": "human"}
    )
    processor = GeneCompassProcessor.from_gene_table(GeneTable.from_genes(genes), max_length=64)
    config = GeneCompassConfig.tiny(
        vocab_size=62, max_position_embeddings=64, species=["human"], id2label={0: "alpha", 1: "beta"}
    )
    for name, network in (("model", GeneCompassForSequenceClassification),):
        network(config).save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    random = np.random.default_rng(0)
    rates = np.ones((120, 60))
    rates[:60, :10] = 6
    rates[60:, 10:20] = 6
    counts = random.poisson(rates)
    ad.AnnData(sp.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=symbols)).write_h5ad(
        folder / "cells.h5ad"
    )
    (folder / "wrong.h5ad").write_text("this is a text file")
    return folder


def _environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NUMBA_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def address(folder):
    """The page as the command line serves it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["app", "--model", str(folder / "model"), "--port", str(port), str(folder / "cells.h5ad")]
    log = open(folder / "server.log", "w")  # noqa: SIM115 - lives as long as the server
    server = subprocess.Popen(
        [sys.executable, "-c", f"from genecompass.cli import main; main({arguments!r})"],
        env=_environment(),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(180):
        try:
            urllib.request.urlopen(url, timeout=2)
            break
        except OSError:
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.5)
    yield url
    server.terminate()
    server.wait(20)
    log.close()


@pytest.fixture
def page(address, tmp_path):
    """A page in a headless browser with an empty profile, and every host that it asked."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=CHROMIUM, headless=True, args=FLAGS, viewport=None
        )
        page = browser.new_page()
        page.set_viewport_size({"width": 1280, "height": 1400})
        page.set_default_timeout(180_000)
        page.hosts = set()
        page.on("request", lambda request: page.hosts.add(urlparse(request.url).hostname))
        page.goto(address)
        page.wait_for_selector("#look")
        yield page
        browser.close()


def _upload(page, file):
    """Choose a file; once more if the page was shown before it listened."""
    from playwright.sync_api import TimeoutError as TooLate

    for _ in range(12):
        page.set_input_files("#upload input[type=file]", str(file))
        try:
            return page.wait_for_selector(f"#upload >> text={file.name}", timeout=10_000)
        except TooLate:
            page.reload()
            page.wait_for_selector("#look")
    raise AssertionError(f"{file.name} was never taken: {page.inner_text('#upload')}")


def _screenshot(page, name):
    folder = os.environ.get("GENECOMPASS_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@needs_app
@needs_browser
def test_upload_look_and_delete_in_a_browser(page, folder):
    _upload(page, folder / "cells.h5ad")
    page.click("#look")
    page.wait_for_selector("#map img")
    page.wait_for_selector("#status >> text=120 cells")
    assert "of all counts are in genes that the model knows" in page.inner_text("#status")
    box = page.locator("#map img").bounding_box()
    assert box["width"] > 300
    assert box["height"] > 200
    table = page.inner_text("#groups")
    assert "alpha" in table or "beta" in table or "unsure" in table
    assert "GENE" in table
    _screenshot(page, "look")

    page.click("#delete")
    page.wait_for_selector("#said >> text=Deleted")
    # a cell of the table, not the hidden row by which the page measures its columns
    page.locator("#shifts").get_by_text("cell_cosine").last.wait_for(state="attached")
    _screenshot(page, "delete")
    assert {host for host in page.hosts if host} <= {"127.0.0.1", "localhost"}


@needs_app
@needs_browser
def test_a_wrong_file_gets_the_message_of_the_command_line(page, folder):
    from genecompass.tokenization.readers import open_cells

    with pytest.raises(ValueError) as expected:
        open_cells(folder / "wrong.h5ad")
    reason = str(expected.value).split(":", 1)[1].strip()
    _upload(page, folder / "wrong.h5ad")
    page.click("#look")
    page.wait_for_selector("#status >> text=Error")
    assert reason in " ".join(page.inner_text("#status").split())
    _screenshot(page, "wrong")
    page.click("#delete")
    page.wait_for_selector("#said >> text=look at a data set first")


@needs_app
def test_exploring_gives_the_same_twice_and_draws_when_there_are_many(folder):
    from genecompass.inference.app.explore import explore

    first = explore(folder / "cells.h5ad", folder / "model", "human", max_cells=50)
    again = explore(folder / "cells.h5ad", folder / "model", "human", max_cells=50)
    assert (first.n_cells, first.n_shown) == (120, 50)
    assert first.labelled
    pd.testing.assert_frame_equal(first.summary, again.summary)
    np.testing.assert_allclose(first.positions, again.positions)
    assert first.summary["cells"].sum() == 50
    assert len(first.genes) == 60


def test_a_space_is_complete_and_names_no_local_path(folder, tmp_path):
    from genecompass.inference.app.page import write_space
    from genecompass.tokenization.errors import InputError

    space = write_space(tmp_path / "space", "someone/tiny@v1", samples={"cells": folder / "cells.h5ad"})
    names = {path.relative_to(space).as_posix() for path in space.rglob("*") if path.is_file()}
    assert names == {"README.md", "app.py", "requirements.txt", "samples/cells.h5ad"}
    code = (space / "app.py").read_text()
    compile(code, "app.py", "exec")
    assert "someone/tiny@v1" in code
    assert str(tmp_path) not in code + (space / "README.md").read_text()
    with pytest.raises(InputError, match="push it first"):
        write_space(tmp_path / "other", str(folder / "model"))
    with pytest.raises(InputError, match="exists already"):
        write_space(tmp_path / "space", "someone/tiny")
