"""Every reader against damaged files: flipped bits, cut and repeated pieces, edited structure.

A reader may read what is left or refuse it with an `InputError`; it may not raise anything else, hang or crash the
process. A few dozen files a format by default; ``GENECOMPASS_FUZZ=2000`` (``make fuzz``) asks for so many. What is
found is written to ``GENECOMPASS_FUZZ_KEEP`` where that names a folder.
"""

import gzip
import json
import os
import pickle
import shutil
from collections import OrderedDict
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.inference import load_checkpoint
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
from genecompass.tokenization import GeneCompassProcessor
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.readers import open_cells
from genecompass.tokenization.safe_pickle import read_plain_pickle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import io, sparse

EXAMPLES = int(os.environ.get("GENECOMPASS_FUZZ", "25"))
KEEP = os.environ.get("GENECOMPASS_FUZZ_KEEP")
GENES, CELLS = 12, 9

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=KEEP is None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# where (as a share of the file), what to do, with what
edits = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["flip", "byte", "cut", "drop", "repeat", "zeros", "ones"]),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def damage(content: bytes, changes) -> bytes:
    for share, what, number in changes:
        at = int(share * len(content))
        if what == "flip":
            flipped = bytes(byte ^ (1 << number % 8) for byte in content[at : at + 1])
            content = content[:at] + flipped + content[at + 1 :]
        elif what == "byte":
            content = content[:at] + bytes([number]) + content[at + 1 :]
        elif what == "cut":
            content = content[:at]
        elif what == "drop":
            content = content[:at] + content[at + number :]
        elif what == "repeat":
            content = content[: at + number] + content[at:]
        else:
            content = content[:at] + (b"\0" if what == "zeros" else b"\xff") * 8 + content[at + 8 :]
    return content


def survives(read, path: Path, what: str) -> None:
    """The file is read or refused in one line that names it; anything else is kept and fails the test."""
    try:
        read(path)
    except InputError as error:
        said = str(error)
    except BaseException:
        if KEEP:
            Path(KEEP).mkdir(parents=True, exist_ok=True)
            target = Path(KEEP) / f"{what}-{abs(hash(path.read_bytes() if path.is_file() else what)):x}{path.suffix}"
            shutil.copytree(path, target) if path.is_dir() else shutil.copyfile(path, target)
        raise
    else:
        return
    assert "\n" not in said, said


def read_cells(path: Path) -> None:
    for _, block in open_cells(path).blocks():
        block.sum()


def _cells() -> anndata.AnnData:
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(0.8, (CELLS, GENES)).astype(np.float32))
    var = pd.DataFrame({"symbol": [f"G{i}" for i in range(GENES)]}, index=[f"ENSG{i:011d}" for i in range(GENES)])
    obs = pd.DataFrame({"kind": pd.Categorical(["a", "b", "c"] * 3)}, index=[f"c{i}" for i in range(CELLS)])
    return anndata.AnnData(counts, obs=obs, var=var)


def _tenx(path: Path) -> None:
    counts = _cells().X
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"] = counts.data.astype(np.int32), counts.indices
        group["indptr"], group["shape"] = counts.indptr, np.array([GENES, CELLS], np.int32)
        group["barcodes"] = np.array([f"c{i}".encode() for i in range(CELLS)])
        for name in ("id", "name"):
            group[f"features/{name}"] = np.array([f"ENSG{i:011d}".encode() for i in range(GENES)])
        group["features/feature_type"] = np.array([b"Gene Expression"] * GENES)


def _loom(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["matrix"] = _cells().X.toarray().T
        file["row_attrs/Gene"] = np.array([f"G{i}".encode() for i in range(GENES)])
        file["col_attrs/CellID"] = np.array([f"c{i}".encode() for i in range(CELLS)])
        file.create_group("layers")


def _old(path: Path) -> None:
    _cells().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"].attrs["encoding-type"]
        file["X"].attrs["h5sparse_format"], file["X"].attrs["h5sparse_shape"] = "csr", (CELLS, GENES)


MAKERS = {
    "cells.h5ad": lambda p: _cells().write_h5ad(p),
    "gzip.h5ad": lambda p: _cells().write_h5ad(p, compression="gzip"),
    "old.h5ad": _old,
    "tenx.h5": _tenx,
    "cells.loom": _loom,
    "cells.csv": lambda p: _cells().to_df().to_csv(p),
    "cells.tsv.gz": lambda p: _cells().to_df().to_csv(p, sep="\t"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One good file of each format."""
    folder = tmp_path_factory.mktemp("whole")
    for name, make in MAKERS.items():
        make(folder / name)
        read_cells(folder / name)
    return folder


@pytest.mark.parametrize("name", MAKERS)
def test_files_of_cells(whole, tmp_path, name):
    content = (whole / name).read_bytes()

    @fuzzed
    @given(edits)
    def run(changes):
        (tmp_path / name).write_bytes(damage(content, changes))
        survives(read_cells, tmp_path / name, "cells")

    run()


HOW = st.sampled_from(["drop", "set", "attribute"])
VALUES = st.sampled_from([0, -1, 2**62, 1.5, "x", b"\xff", np.nan, np.zeros(0), np.zeros((2, 2)), np.arange(5), [b"a"]])


@pytest.mark.parametrize("name", ["cells.h5ad", "tenx.h5", "cells.loom"])
def test_structure_of_hdf5_files(whole, tmp_path, name):
    """Data sets and attributes replaced by others, groups dropped: sound HDF5 that says strange things."""
    names: list[str] = []
    with h5py.File(whole / name) as file:
        file.visit(names.append)

    @fuzzed
    @given(st.lists(st.tuples(st.sampled_from(names), HOW, VALUES), max_size=3))
    def run(changes):
        shutil.copyfile(whole / name, tmp_path / name)
        with h5py.File(tmp_path / name, "r+") as file:
            for where, what, value in changes:
                if where not in file:
                    continue
                if what == "attribute":
                    for key in list(file[where].attrs):
                        file[where].attrs[key] = value
                else:
                    del file[where]
                    if what == "set":
                        file[where] = value
        survives(read_cells, tmp_path / name, "structure")

    run()


@pytest.mark.parametrize("file", ["matrix.mtx", "barcodes.tsv.gz", "features.tsv.gz"])
def test_tenx_folders(tmp_path, file):
    whole = tmp_path / "whole"
    whole.mkdir()
    io.mmwrite(whole / "matrix.mtx", sparse.coo_matrix(_cells().X.T.astype(int)))
    (whole / "barcodes.tsv.gz").write_bytes(gzip.compress("\n".join(f"c{i}" for i in range(CELLS)).encode()))
    genes = "\n".join(f"ENSG{i:011d}\tG{i}\tGene Expression" for i in range(GENES))
    (whole / "features.tsv.gz").write_bytes(gzip.compress(genes.encode()))
    read_cells(whole)
    content = (whole / file).read_bytes()

    @fuzzed
    @given(edits, st.booleans())
    def run(changes, inside):
        inside = inside and file.endswith(".gz")
        spoilt = damage(gzip.decompress(content) if inside else content, changes)
        (whole / file).write_bytes(gzip.compress(spoilt) if inside else spoilt)
        survives(read_cells, whole, "tenx")

    run()


def test_gene_tables(tmp_path):
    genes = pd.DataFrame({"gene_id": [f"ENSG{i:011d}" for i in range(GENES)], "species": "human", "median": 1.5})
    GeneTable.from_genes(genes).write(tmp_path / "whole.tsv.gz")
    content = gzip.decompress((tmp_path / "whole.tsv.gz").read_bytes())

    @fuzzed
    @given(edits, st.booleans())
    def run(changes, inside):
        packed = gzip.compress(damage(content, changes)) if inside else damage(gzip.compress(content), changes)
        (tmp_path / "genes.tsv.gz").write_bytes(packed)
        survives(GeneTable.read, tmp_path / "genes.tsv.gz", "genes")

    run()


PICKLED = {
    "ENSG1": 1, 2: [1.5, None, True, (1, (2,))], "s": {1, "x"}, "f": frozenset([3]), "o": OrderedDict(a=1),
    "n": np.float64(1.5), "a": np.arange(6.0).reshape(2, 3), "b": np.arange(3, dtype=">i4"), "t": b"bytes",
}  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
def test_pickles(tmp_path, protocol):
    content = pickle.dumps(PICKLED, protocol=protocol)

    @fuzzed
    @given(edits)
    def run(changes):
        (tmp_path / "x.pickle").write_bytes(damage(content, changes))
        survives(read_plain_pickle, tmp_path / "x.pickle", "pickle")

    run()
    (tmp_path / "x.pickle").write_bytes(content)
    assert read_plain_pickle(tmp_path / "x.pickle")["ENSG1"] == 1


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    genes = pd.DataFrame({"gene_id": [f"ENSG{i:011d}" for i in range(GENES)], "species": "human", "median": 1.5})
    table = GeneTable.from_genes(genes)
    folder = tmp_path_factory.mktemp("checkpoint")
    config = GeneCompassConfig.tiny(
        vocab_size=table.vocab_size, species=["human"], max_position_embeddings=16, num_hidden_layers=1, hidden_size=8
    )
    torch.manual_seed(0)
    GeneCompassForMaskedGeneModeling(config).save_pretrained(folder)
    GeneCompassProcessor.from_gene_table(table, max_length=16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "genes.tsv.gz"])
def test_checkpoints(checkpoint, tmp_path, file):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    content = (folder / file).read_bytes()

    @fuzzed
    @given(edits)
    def run(changes):
        (folder / file).write_bytes(damage(content, changes))
        survives(lambda path: load_checkpoint(path, device="cpu"), folder, "checkpoint")

    run()


def test_configurations(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    odd = st.one_of(
        st.none(), st.booleans(), st.integers(-(10**18), 10**18), st.floats(), st.text(max_size=5), st.just([]),
        st.just({}), st.just({"a": 10**9}), st.just(["human"] * 3),
    )  # fmt: skip

    @fuzzed
    @given(st.dictionaries(st.sampled_from(sorted(content)), odd, min_size=1, max_size=3))
    def run(changes):
        (folder / "config.json").write_text(json.dumps(content | changes))
        survives(lambda path: load_checkpoint(path, device="cpu"), folder, "config")

    run()
