"""Counts to tokens as the published code computed them, through every door."""

import json
import subprocess
import sys
from itertools import pairwise

import anndata
import numpy as np
import pandas as pd
import pytest
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.processing_genecompass import GeneCompassProcessor
from genecompass.tokenization.tokenize import tokenize_cells

from genecompass.cli import main

SPECIES = ("human", "mouse")


@pytest.fixture(scope="module")
def reference(fixtures):
    folder = fixtures / "reference-tokens"
    return folder, GeneTable.read(folder / "genes.tsv.gz")


def _assert_right(expected, cells):
    """Values to 1e-6; within runs of equal expected values the same tokens, but for a run that the cut splits."""
    assert len(expected) == len(cells)
    for row, cell in enumerate(cells):
        n = expected["length"][row]
        values, ids = expected["values"][row][:n], expected["input_ids"][row][:n]
        assert len(cell["input_ids"]) == n
        np.testing.assert_allclose(cell["values"], values, atol=1e-6, rtol=0)
        bounds = np.flatnonzero(np.concatenate(([True], np.diff(values) != 0, [True])))
        for begin, end in pairwise(bounds):
            if end < 2048:
                assert set(ids[begin:end]) == set(cell["input_ids"][begin:end])


@pytest.mark.parametrize("species", SPECIES)
def test_library(reference, species):
    folder, table = reference
    expected = pd.read_parquet(folder / f"{species}.expected.parquet")
    cells = tokenize_cells(folder / f"{species}.h5ad", table, species=species)
    _assert_right(expected, cells)
    assert (cells.species == expected["species"].to_numpy()).all()
    ties = [np.diff(cell["input_ids"])[np.diff(cell["values"]) == 0] for cell in cells]
    assert all((steps > 0).all() for steps in ties)


_WITHOUT_PACKAGE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "genecompass":
            raise ImportError("not here: " + name)
sys.meta_path.insert(0, Refuse())
import numpy as np
import transformers
from transformers import AutoProcessor, AutoTokenizer
folder, arrays, out = sys.argv[1:]
given = np.load(arrays)
genes = given["genes"].tolist()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
batch = processor(given["counts"], genes=genes, species=str(given["species"]), return_tensors="np")
assert "genecompass" not in sys.modules
assert type(processor).__module__.startswith("transformers_modules")
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = tokenizer.convert_tokens_to_ids(["<pad>", "<mask>", processor.gene_table["gene_id"][9]])
assert ids == [0, 1, 9], ids
np.savez(out, **batch)
"""


@pytest.mark.parametrize("species", SPECIES)
def test_auto_processor_without_the_package_gives_the_same_bytes(reference, species, tmp_path):
    folder, table = reference
    GeneCompassProcessor.from_gene_table(table).save_pretrained(tmp_path / "checkpoint")
    adata = anndata.read_h5ad(folder / f"{species}.h5ad")[:40]
    genes = adata.var["ensembl_id"].to_numpy(str)
    np.savez(tmp_path / "in.npz", counts=adata.X.toarray(), genes=genes, species=species)
    arguments = [tmp_path / "checkpoint", tmp_path / "in.npz", tmp_path / "out.npz"]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PACKAGE, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    batch = np.load(tmp_path / "out.npz")
    cells = tokenize_cells(adata, table, species=species)
    for row, cell in enumerate(cells):
        n = len(cell["input_ids"])
        assert batch["attention_mask"][row].sum() == n
        assert batch["input_ids"][row, :n].astype(np.int32).tobytes() == cell["input_ids"].tobytes()
        assert batch["values"][row, :n].tobytes() == cell["values"].tobytes()
        assert batch["species"][row] == cell["species"]


def test_command_line_gives_the_same_bytes(reference, tmp_path, capsys):
    folder, table = reference
    inputs = [f"{species}={folder / species}.h5ad" for species in SPECIES]
    with pytest.raises(SystemExit) as ended:
        main(["corpus", "tokenize", *inputs, "-o", str(tmp_path / "out"), "--table", str(folder / "genes.tsv.gz")])
    assert ended.value.code == 0
    for number, species in enumerate(SPECIES):
        frame = pd.read_parquet(tmp_path / "out" / f"data-{number:05d}-of-00002.parquet")
        cells = tokenize_cells(folder / f"{species}.h5ad", table, species=species)
        for row, cell in zip(range(len(frame)), cells, strict=True):
            n = len(cell["input_ids"])
            assert frame["length"][row] == n
            assert frame["input_ids"][row][:n].tobytes() == cell["input_ids"].tobytes()
            assert frame["values"][row][:n].tobytes() == cell["values"].tobytes()
            assert len(frame["values"][row]) == 2048
            assert not frame["values"][row][n:].any()
    assert json.loads((tmp_path / "out/report.json").read_text())["cells"] == 200
    assert "200 cells" in capsys.readouterr().out
