"""Bad input through the command line: exit code 2, one line that helps, nothing left behind."""

import errno
import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.write_tokens import write_tokens
from scipy import sparse

from genecompass.cli import main


@pytest.fixture
def refused(tmp_path, adata, table, capsys):
    """Run ``corpus tokenize`` on changed cells and give the one line it prints."""
    table.write(tmp_path / "genes.tsv.gz")

    def run(change=None, *options, species="human", path=None):
        changed = adata.copy() if change is None else change(adata.copy())
        number = len(list(tmp_path.glob("cells*.h5ad")))
        path = path or tmp_path / f"cells{number}.h5ad"
        if changed is not None:
            changed.write_h5ad(path)
        with pytest.raises(SystemExit) as ended:
            arguments = [
                "corpus",
                "tokenize",
                f"{species}={path}",
                "-o",
                tmp_path / "out",
                "--table",
                tmp_path / "genes.tsv.gz",
            ]
            main([str(item) for item in [*arguments, *options]])
        assert ended.value.code == 2
        assert not (tmp_path / "out").exists()
        assert not [item for item in tmp_path.iterdir() if "partial" in item.name]
        # beside progress and what was understood of the genes
        said = capsys.readouterr().err.splitlines()
        lines = [line for line in said if line and "shard" not in line and "genes matched" not in line]
        assert len(lines) == 1, lines
        return lines[0]

    return run


def _with(values):
    def change(adata):
        adata.X = sparse.csr_matrix(values(adata.X.toarray()))
        return adata

    return change


def _at(row, column, value):
    def change(dense):
        dense[row, column] = value
        return dense

    return _with(change)


def test_values(refused):
    assert "value nan" in refused(_at(3, 3, np.nan))
    assert "negative, so scaled" in refused(_at(3, 3, -2))
    assert "log-normalised" in refused(_with(np.log1p))
    assert "cell 'cell4' has no counts" in refused(_at(4, slice(None), 0))
    assert "no cells left" in refused(_with(np.zeros_like), "--empty-cells", "drop")


def test_no_cells_after_quality_control(refused):
    assert "no cells left of 25 (min_genes: 25); loosen quality control" in refused(None, "--quality", "paper")


def test_species_and_genes(refused):
    def mouse_symbols(adata):
        adata.var_names = [name.capitalize() for name in adata.var_names]
        adata.var = adata.var.drop(columns="ensembl_id")
        return adata

    def strange(adata):
        adata.var = pd.DataFrame(index=[f"x{i}" for i in range(adata.n_vars)])
        return adata

    assert "'rat' is neither a species of this vocabulary (human, mouse)" in refused(None, species="rat")
    assert "pass --species mouse" in refused(mouse_symbols)
    assert "none of the 40 genes is known" in refused(strange)
    assert "no var column 'mine'" in refused(None, "--gene-column", "mine")
    assert "no matrix 'mine'; there are X" in refused(None, "--counts", "mine")


def test_files(refused, tmp_path, adata):
    assert "no such file" in refused(lambda _: None, path=tmp_path / "nowhere.h5ad")
    (tmp_path / "empty.h5ad").touch()
    assert "the file is empty" in refused(lambda _: None, path=tmp_path / "empty.h5ad")
    adata.write_h5ad(tmp_path / "half.h5ad")
    raw = (tmp_path / "half.h5ad").read_bytes()
    (tmp_path / "half.h5ad").write_bytes(raw[: len(raw) // 2])
    assert "truncated" in refused(lambda _: None, path=tmp_path / "half.h5ad")


def test_a_late_error_leaves_nothing(refused):
    assert "not a whole number" in refused(_at(24, 0, 1.5), "--cells-per-shard", "5")


def test_the_folder_is_there_already(adata, table, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        write_tokens([(adata, "human")], tmp_path / "out", table)
    assert (tmp_path / "out/mine.txt").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_not_writable(adata, table, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        write_tokens([(adata, "human")], tmp_path / "locked/out", table)


def test_not_a_folder(refused, tmp_path, adata, table):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        write_tokens([(adata, "human")], tmp_path / "file/out", table)


def test_disk_full(refused, monkeypatch):
    class Full:
        def __init__(self, *_, **__):
            pass

        def write_batch(self, *_):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "ParquetWriter", Full)
    assert "No space left on device" in refused()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_disk_full_for_real(adata, table, tmp_path, monkeypatch):
    import pyarrow as pa

    real = pa.OSFile
    monkeypatch.setattr(pa, "OSFile", lambda path, mode: real("/dev/full", mode))
    with pytest.raises(OSError, match="No space left on device"):
        write_tokens([(adata, "human")], tmp_path / "out", table)
    assert list(tmp_path.iterdir()) == []


class TestGoodRuns:
    @pytest.mark.parametrize("file_format", ["parquet", "arrow"])
    @pytest.mark.parametrize("pad", [True, False])
    def test_shards_and_jobs_do_not_change_cells(self, adata, table, tmp_path, file_format, pad):
        import datasets

        adata.write_h5ad(tmp_path / "a.h5ad")
        sources = [(tmp_path / "a.h5ad", "human")] * 2
        options = {"file_format": file_format, "pad": pad, "max_length": 30}
        one = write_tokens(sources, tmp_path / "one", table, **options)
        many = write_tokens(sources, tmp_path / "many", table, cells_per_shard=7, jobs=2, **options)
        assert one["cells"] == many["cells"] == 50
        assert one["sources"] == many["sources"]

        def read(folder):
            if file_format == "arrow":
                return datasets.load_from_disk(folder).to_pandas()
            return pd.concat(map(pd.read_parquet, sorted(folder.glob("*.parquet"))), ignore_index=True)

        first, second = read(tmp_path / "one"), read(tmp_path / "many")
        assert len(first) == 50
        for name in first.columns:
            assert all(np.array_equal(a, b) for a, b in zip(first[name], second[name], strict=True))
        assert {len(row) for row in first["values"]} == ({30} if pad else set(first["length"]))

    def test_quality_looks_at_the_whole_file(self, adata, table, tmp_path):
        from genecompass.tokenization.quality import QualityControl

        rule = QualityControl("sd", counts_sd=1.0)
        one = write_tokens([(adata, "human")], tmp_path / "one", table, quality=rule)
        many = write_tokens([(adata, "human")], tmp_path / "many", table, quality=rule, cells_per_shard=5)
        assert one == many
