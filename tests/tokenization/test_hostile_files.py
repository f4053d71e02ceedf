"""Files that would crash the process, fill the memory or show what is none of theirs are refused in one line."""

import gzip
import os
import subprocess
import sys

import anndata
import h5py
import numpy as np
import pytest
from genecompass.tokenization import GeneCompassProcessor
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.readers import open_cells
from scipy import sparse

WRONG_POINTERS = {
    "far away": lambda p: np.concatenate([p[:3], [10**9], p[4:]]),
    "falling": lambda p: np.concatenate([p[:3], [0], p[4:]]),
    "negative": lambda p: np.concatenate([p[:1], [-5], p[2:]]),
    "not from zero": lambda p: np.concatenate([[2], p[1:]]),
    "too few": lambda p: p[:-2],
    "beyond the end": lambda p: np.concatenate([p[:-1], [10**9]]),
}


def read_all(source):
    return [block for _, block in open_cells(source, block_rows=7).blocks()]


@pytest.mark.parametrize("damage", WRONG_POINTERS)
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_wrong_pointers_in_a_file(adata, tmp_path, layout, damage):
    adata.X = sparse.csr_matrix(adata.X) if layout == "csr" else sparse.csc_matrix(adata.X)
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        pointers = WRONG_POINTERS[damage](file["X/indptr"][:])
        del file["X/indptr"]
        file["X/indptr"] = pointers
    with pytest.raises(InputError, match=r"cells\.h5ad.*pointers"):
        read_all(path)


@pytest.mark.parametrize("damage", sorted(set(WRONG_POINTERS) - {"too few"}))
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_wrong_pointers_in_memory(adata, table, layout, damage):
    matrix = sparse.csr_matrix(adata.X) if layout == "csr" else sparse.csc_matrix(adata.X)
    matrix.indptr = WRONG_POINTERS[damage](matrix.indptr).astype(matrix.indptr.dtype)
    processor = GeneCompassProcessor.from_gene_table(table)
    with pytest.raises(ValueError, match="damaged"):
        processor(matrix, genes=list(adata.var_names), species="human")
    adata.X = matrix
    with pytest.raises(InputError, match="pointers"):
        read_all(adata)


@pytest.mark.parametrize("layout", ["csc", "coo"])
def test_wrong_indices_in_memory(adata, layout):
    matrix = adata.X.asformat(layout)
    (matrix.indices if layout == "csc" else matrix.row)[3] = 10**8
    adata.X = matrix if layout == "csc" else adata.X
    if layout == "coo":
        adata = type("Cells", (), {"obs": adata.obs, "var": adata.var, "X": matrix, "raw": None, "layers": {}})()
    with pytest.raises(InputError, match="out of range"):
        read_all(adata)


def test_wrong_pointers_do_not_kill_a_backed_reader(adata, tmp_path):
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X/indptr"][4] = 2**31 - 2
    code = (
        "import sys, anndata; from genecompass.tokenization.readers import open_cells\n"
        "try: [b for _, b in open_cells(anndata.read_h5ad(sys.argv[1], backed='r')).blocks()]\n"
        "except ValueError as error: print(error); sys.exit(3)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr[-500:]
    assert "pointers" in done.stdout


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"HF_TOKEN=hf_1234567890".ljust(64, b"."))
    return path


def external_storage(file, name, secret):
    parent = file.require_group(name.rpartition("/")[0] or "/")
    parent.create_dataset(name.rpartition("/")[2], (64,), "S1", external=[(str(secret), 0, 64)])


def external_link(file, name, secret):
    file[name] = h5py.ExternalLink(str(secret) + ".h5", "/names")


def virtual(file, name, secret):
    layout = h5py.VirtualLayout((64,), "S1")
    layout[:] = h5py.VirtualSource(str(secret) + ".h5", "names", (64,), "S1")
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("trick", [external_storage, external_link, virtual])
@pytest.mark.parametrize(("ending", "name"), [("h5ad", "var/name"), ("h5", "matrix/barcodes"), ("loom", "col_attrs/x")])
def test_nothing_is_read_from_other_files(adata, tmp_path, secret, trick, ending, name):
    with h5py.File(str(secret) + ".h5", "w") as file:
        file["names"] = np.frombuffer(secret.read_bytes(), "S1")
    path = tmp_path / f"cells.{ending}"
    if ending == "h5ad":
        adata.write_h5ad(path)
    with h5py.File(path, "a") as file:
        trick(file, name, secret)
    with pytest.raises(InputError, match="another file") as caught:
        read_all(path)
    assert "hf_1" not in str(caught.value)


def test_a_small_file_may_not_claim_the_memory(adata, tmp_path):
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X/indptr"]
        file["X"].create_dataset("indptr", (10**12,), "int64", chunks=(10**6,))
    with pytest.raises(InputError, match="claims 8e\\+03 GB"):
        read_all(path)


def test_a_small_gzip_may_not_fill_the_memory(tmp_path):
    (tmp_path / "barcodes.tsv.gz").write_bytes(gzip.compress(b"A" * (300 << 20), 1))
    (tmp_path / "genes.tsv").write_text("g\n")
    (tmp_path / "matrix.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n1 1 1\n1 1 1\n")
    with pytest.raises(InputError, match="unfold to more than"):
        read_all(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match="pipe or device"):
        open_cells(tmp_path / "cells.h5ad")


def test_whatever_a_library_says_of_a_damaged_file_is_one_line(adata, tmp_path):
    """Strange types and shapes where AnnData has names: h5py and anndata answer with errors of ten kinds."""
    whole = tmp_path / "whole.h5ad"
    adata.write_h5ad(whole)
    spoilt = [("obs", 7), ("var", np.zeros((2, 2))), ("X", np.zeros(3)), ("obs/_index", 1.5), ("X/indptr", b"x")]
    for place, (name, value) in enumerate(spoilt):
        path = tmp_path / f"spoilt{place}.h5ad"
        path.write_bytes(whole.read_bytes())
        with h5py.File(path, "r+") as file:
            del file[name]
            file[name] = value
        with pytest.raises(InputError, match=path.name):
            read_all(path)


def test_a_heap_that_leads_nowhere_does_not_hang_the_reader(adata, tmp_path):
    """The library itself never comes back from such a file."""
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    content = bytearray(path.read_bytes())
    heap = content.find(b"GCOL")
    content[heap + 16] = 0  # the first text counts as free space now
    path.write_bytes(content)
    with pytest.raises(InputError, match="heap of texts leads nowhere"):
        open_cells(path)


def test_anndata_is_left_alone(adata):
    assert isinstance(adata, anndata.AnnData)
    assert sum(block.shape[0] for block in read_all(adata)) == 25
