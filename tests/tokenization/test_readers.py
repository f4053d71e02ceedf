import gzip
import io

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.readers import open_cells
from genecompass.tokenization.readers.on_disk import CscRows
from scipy import sparse


def _all(source, **kw):
    return sparse.vstack([block for _, block in open_cells(source, block_rows=7, **kw).blocks()]).toarray()


def _tenx_h5(path, counts, version):
    by_cell = counts.tocsr()
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        for name, value in (
            ("data", by_cell.data.astype(np.int32)),
            ("indices", by_cell.indices),
            ("indptr", by_cell.indptr),
        ):
            group[name] = value
        group["shape"] = np.array(counts.shape[::-1], dtype=np.int32)
        group["barcodes"] = np.array([f"c{i}".encode() for i in range(counts.shape[0])])
        ids = np.array([f"ENSG{i:011d}".encode() for i in range(counts.shape[1])])
        names = np.array([f"HGENE{i}".encode() for i in range(counts.shape[1])])
        if version == 3:
            group["features/id"], group["features/name"] = ids, names
            kinds = [b"Gene Expression"] * (counts.shape[1] - 2) + [b"Antibody Capture"] * 2
            group["features/feature_type"] = np.array(kinds)
        else:
            group["genes"], group["gene_names"] = ids, names


def _tenx_folder(path, counts, transpose=True, gene_order=False):
    path.mkdir()
    matrix = counts.T.tocoo() if transpose else counts.tocoo()
    matrix = matrix.tocsr().tocoo() if gene_order else matrix.tocsc().tocoo() if transpose else matrix.tocsr().tocoo()
    buffer = io.BytesIO()
    scipy.io.mmwrite(buffer, sparse.coo_matrix((matrix.data.astype(int), (matrix.row, matrix.col)), matrix.shape))
    with gzip.open(path / "matrix.mtx.gz", "wb") as file:
        file.write(buffer.getvalue())
    pd.DataFrame([f"c{i}" for i in range(counts.shape[0])]).to_csv(path / "barcodes.tsv", header=False, index=False)
    genes = pd.DataFrame(
        {0: [f"ENSG{i:011d}" for i in range(counts.shape[1])], 1: [f"G{i}" for i in range(counts.shape[1])]}
    )
    genes.to_csv(path / "genes.tsv", sep="\t", header=False, index=False)


@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_anndata_files_of_every_layout(adata, tmp_path, layout, ending):
    expected = adata.X.toarray()
    adata.X = {"csr": adata.X, "csc": adata.X.tocsc(), "dense": expected}[layout]
    path = tmp_path / f"cells{ending}"
    adata.write_h5ad(path) if ending == ".h5ad" else adata.write_zarr(path)
    source = open_cells(path)
    assert (source.n_cells, source.n_genes) == adata.shape
    assert list(source.obs.index) == list(adata.obs_names)
    assert list(source.var.index) == list(adata.var_names)
    np.testing.assert_array_equal(_all(path), expected)
    middle = sparse.vstack([block for _, block in open_cells(path, block_rows=4).blocks(3, 17)])
    np.testing.assert_array_equal(middle.toarray(), expected[3:17])


def test_anndata_in_memory_backed_and_view(adata, tmp_path):
    expected = adata.X.toarray()
    np.testing.assert_array_equal(_all(adata), expected)
    np.testing.assert_array_equal(_all(adata[5:20:3]), expected[5:20:3])
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(_all(backed), expected)
    np.testing.assert_array_equal(_all(backed[4:9]), expected[4:9])


def test_the_users_arrays_are_not_changed(counts):
    unsorted = sparse.csr_matrix((np.array([1.0, 2.0, 3.0]), np.array([2, 0, 0]), np.array([0, 3])), shape=(1, 3))
    adata = anndata.AnnData(unsorted)
    block = next(open_cells(adata).blocks())[1]
    assert block.toarray().tolist() == [[5.0, 0.0, 1.0]]
    assert adata.X.indices.tolist() == [2, 0, 0]


def test_old_anndata_files(adata, tmp_path):
    path = tmp_path / "old.h5ad"
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["h5sparse_format"] = "csr"
        group.attrs["h5sparse_shape"] = np.array(adata.shape)
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(adata.X, name)
        for key, names in (("obs", adata.obs_names), ("var", adata.var_names)):
            file[key] = np.array([(n.encode(),) for n in names], dtype=[("index", "S20")])
    np.testing.assert_array_equal(_all(path), adata.X.toarray())
    assert list(open_cells(path).var.index) == list(adata.var_names)


def test_csc_windows_are_bounded_and_exact(counts):
    csc = counts.tocsc()
    rows = CscRows(csc.data, csc.indices, csc.indptr, counts.shape, window_entries=50)
    blocks = list(rows.blocks(2, 23, 4))
    assert next(first for first, _ in blocks) == 2
    assert all(block.shape[0] <= 4 for _, block in blocks)
    np.testing.assert_array_equal(sparse.vstack([b for _, b in blocks]).toarray(), counts[2:23].toarray())


@pytest.mark.parametrize("version", [2, 3])
def test_tenx_h5(counts, tmp_path, version):
    path = tmp_path / "filtered.h5"
    _tenx_h5(path, counts, version)
    expected = counts.toarray() if version == 2 else counts.toarray()[:, :-2]
    np.testing.assert_array_equal(_all(path), expected)
    assert open_cells(path).var["gene_id"].iloc[3] == "ENSG00000000003"


@pytest.mark.parametrize("transpose", [True, False])
@pytest.mark.parametrize("gene_order", [True, False])
def test_tenx_folder_in_any_order(counts, tmp_path, monkeypatch, transpose, gene_order):
    monkeypatch.setattr("genecompass.tokenization.readers.spool._LINES", 100)
    _tenx_folder(tmp_path / "mtx", counts, transpose, gene_order)
    np.testing.assert_array_equal(_all(tmp_path / "mtx"), counts.toarray())


def test_tenx_folder_truncated(counts, tmp_path):
    _tenx_folder(tmp_path / "mtx", counts)
    raw = (tmp_path / "mtx/matrix.mtx.gz").read_bytes()
    (tmp_path / "mtx/matrix.mtx.gz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError, match="truncated"):
        open_cells(tmp_path / "mtx")
    (tmp_path / "mtx/barcodes.tsv").unlink()
    with pytest.raises(InputError, match=r"lacks barcodes\.tsv"):
        open_cells(tmp_path / "mtx")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".txt"])
@pytest.mark.parametrize("by_cell", [True, False])
@pytest.mark.parametrize("names", ["symbol", "id"])
def test_text_tables_of_either_orientation(adata, tmp_path, ending, by_cell, names):
    columns = adata.var_names if names == "symbol" else adata.var["ensembl_id"]
    frame = pd.DataFrame(adata.X.toarray().astype(int), index=adata.obs_names, columns=columns)
    path = tmp_path / f"counts{ending}"
    (frame if by_cell else frame.T).to_csv(path, sep="," if "csv" in ending else "\t")
    source = open_cells(path)
    assert list(source.obs.index) == list(adata.obs_names)
    np.testing.assert_array_equal(_all(path), adata.X.toarray())


def test_text_table_that_is_not_numbers(tmp_path):
    (tmp_path / "bad.csv").write_text("cell,ENSG00000000001,ENSG00000000002\na,1,x\nb,2,3\n")
    with pytest.raises(InputError, match="'x'"):
        open_cells(tmp_path / "bad.csv")


def test_loom(counts, tmp_path):
    path = tmp_path / "cells.loom"
    with h5py.File(path, "w") as file:
        file["matrix"] = np.log1p(counts.toarray().T)
        file["layers/counts"] = counts.toarray().T
        file["row_attrs/Gene"] = np.array([f"HGENE{i}".encode() for i in range(counts.shape[1])])
        file["col_attrs/CellID"] = np.array([f"c{i}".encode() for i in range(counts.shape[0])])
    np.testing.assert_array_equal(_all(path), counts.toarray())
    source = open_cells(path)
    assert source.counts_from == "counts"
    assert source.var.index[2] == "HGENE2"
    with pytest.raises(InputError, match="log-normalised"):
        _all(path, counts="X")


class TestWhereTheCountsAre:
    def test_raw_before_layers_before_x(self, adata):
        expected = adata.X.toarray()
        adata.layers["counts"] = adata.X.copy()
        adata.X = np.log1p(expected / expected.sum(1, keepdims=True) * 1e4)
        assert open_cells(adata).counts_from == "counts"
        np.testing.assert_array_equal(_all(adata), expected)
        adata.raw = anndata.AnnData(adata.layers["counts"], obs=adata.obs, var=adata.var)
        assert open_cells(adata[:, :20]).counts_from == "raw"
        assert open_cells(adata[:, :20]).n_genes == 40

    def test_a_logged_raw_is_passed_over(self, adata):
        logged = adata.copy()
        logged.X = np.log1p(logged.X.toarray())
        adata.raw = logged
        assert open_cells(adata).counts_from == "X"

    def test_named(self, adata, tmp_path):
        adata.layers["umis"] = adata.X * 2
        assert _all(adata, counts="umis").sum() == 2 * adata.X.sum()
        with pytest.raises(InputError, match=r"no matrix 'nope'; there are umis, X"):
            open_cells(adata, counts="nope")
        adata.write_h5ad(tmp_path / "a.h5ad")
        assert _all(tmp_path / "a.h5ad", counts="umis").sum() == 2 * adata.X.sum()


class TestNotRawCounts:
    @pytest.mark.parametrize("base", [np.e, 2, 10])
    def test_logged(self, adata, base):
        dense = adata.X.toarray()
        adata.X = np.log1p(dense / dense.sum(1, keepdims=True) * 1e4) / np.log(base)
        with pytest.raises(InputError, match=r"cell 'cell0' has value .*log-normalised"):
            _all(adata)
        with pytest.raises(InputError, match="log-normalised"):
            _all(adata, allow_fractional=True)

    def test_scaled(self, adata):
        dense = adata.X.toarray()
        adata.X = dense - dense.mean(0)
        with pytest.raises(InputError, match="negative, so scaled"):
            _all(adata)

    def test_one_total(self, adata):
        dense = adata.X.toarray()
        adata.X = dense / dense.sum(1, keepdims=True) * 1e4
        with pytest.raises(InputError, match="fixed total"):
            _all(adata)

    def test_nan_late_in_the_file(self, adata):
        dense = adata.X.toarray()
        dense[23, 5] = np.nan
        adata.X = dense
        with pytest.raises(InputError, match=r"cell 'cell23' has value nan for gene 'HGENE5': not a number"):
            _all(adata)

    def test_negative_integers(self, adata):
        adata.X = adata.X.astype(np.int32)
        adata.X.data[3] = -1
        with pytest.raises(InputError, match="negative"):
            _all(adata)

    def test_fractions_only_when_told(self, adata):
        rng = np.random.default_rng(0)
        adata.X.data = adata.X.data + rng.random(len(adata.X.data)).astype(np.float32)
        with pytest.raises(InputError, match="allow_fractional"):
            _all(adata)
        assert _all(adata, allow_fractional=True).sum() == pytest.approx(adata.X.sum(), rel=1e-6)


class TestBadFiles:
    def test_missing_empty_unknown(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            open_cells(tmp_path / "x.h5ad")
        (tmp_path / "empty.h5ad").touch()
        with pytest.raises(InputError, match="file is empty"):
            open_cells(tmp_path / "empty.h5ad")
        (tmp_path / "x.docx").write_text("hello")
        with pytest.raises(InputError, match="unknown kind of file"):
            open_cells(tmp_path / "x.docx")
        with pytest.raises(InputError, match="cannot read cells from a int"):
            open_cells(3)

    @pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
    def test_truncated_h5ad(self, adata, tmp_path, share):
        path = tmp_path / "t.h5ad"
        adata.write_h5ad(path, compression="gzip")
        raw = path.read_bytes()
        path.write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(InputError, match=r"truncated"):
            _all(path)

    def test_not_anndata(self, tmp_path):
        with h5py.File(tmp_path / "x.h5ad", "w") as file:
            file["something"] = [1, 2]
        with pytest.raises(InputError, match="not an AnnData file: it holds something"):
            open_cells(tmp_path / "x.h5ad")
        with h5py.File(tmp_path / "y.h5", "w") as file:
            file["something"] = [1, 2]
        with pytest.raises(InputError, match="not a 10x count file"):
            open_cells(tmp_path / "y.h5")

    def test_indices_out_of_range(self, adata, tmp_path):
        adata.write_h5ad(tmp_path / "d.h5ad")
        with h5py.File(tmp_path / "d.h5ad", "a") as file:
            file["X/indices"][5] = 1000
        with pytest.raises(InputError, match="damaged"):
            _all(tmp_path / "d.h5ad")

    def test_no_cells(self, adata):
        with pytest.raises(InputError, match="holds 0 cells"):
            open_cells(adata[:0])
