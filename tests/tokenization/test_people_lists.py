"""Lists, tables and files as people keep them: byte-order marks, other encodings, index columns, both genomes, CSC."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from genecompass.inference.perturbation.cells import read_gene_list
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import read_text
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.readers import open_cells
from genecompass.tokenization.readers.on_disk import CscRows
from genecompass.tokenization.tables import read_table
from genecompass.tokenization.tokenize import tokenize_cells
from scipy import sparse


@pytest.mark.parametrize(
    "content",
    [
        "FOS\nJUN\n".encode("utf-8-sig"),
        "FOS\r\n\r\nJUN\r\n".encode("utf-16"),
        b",TF\n0,FOS\n1,JUN\n",
        b"number;gene_symbol\n1;FOS\n2;JUN\n",
        b"TF\tn\nFOS\t3\nJUN\t4\n",
        b'"FOS"\n"JUN"\n"FOS"\n',
    ],
)
def test_a_list_of_genes_in_any_of_the_forms_that_people_keep(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    assert read_gene_list(tmp_path / "list.txt") == ["FOS", "JUN"]


@pytest.mark.parametrize("read", [read_text, read_table, read_gene_list])
def test_text_in_another_encoding_is_named(tmp_path, read):
    path = tmp_path / "latin.csv"
    path.write_bytes("gene\nNÄME\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.csv: not UTF-8 text .* save it as UTF-8"):
        read(path)


@pytest.mark.parametrize(("content", "message"), [(b"", "it is empty"), (b"a,b\n1,2\n1,2,3\n", "no table can be read")])
def test_tables_that_are_none_are_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"t\.csv: .*{message}"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"absent\.csv"):
        read_table(tmp_path / "absent.csv")


@pytest.fixture
def two_genomes():
    human, mouse = ([f"{prefix}{i:011d}" for i in range(6)] for prefix in ("ENSG", "ENSMUSG"))
    frame = pd.DataFrame({"gene_id": human + mouse, "species": ["human"] * 6 + ["mouse"] * 6})
    counts = np.zeros((4, 12), dtype=np.float32)
    counts[:2, :6], counts[2:, 6:10] = 3, 2
    obs = pd.DataFrame({"species": ["human", "human", "mouse", "mouse"]}, index=list("abcd"))
    return GeneTable.from_genes(frame), ad.AnnData(
        sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=human + mouse)
    )


@pytest.mark.parametrize("columns", [slice(None), slice(0, 9), slice(5, 12)])
def test_both_genomes_in_one_file_by_id(two_genomes, columns):
    table, adata = two_genomes
    cells = tokenize_cells(adata[:, columns].copy(), table, species="species", min_coverage=0)
    kinds = table.frame["species"].to_numpy()
    for cell, species in zip(cells, adata.obs["species"], strict=True):
        assert len(cell["input_ids"])
        assert set(kinds[cell["input_ids"]]) == {species}


def test_a_species_without_any_gene_in_the_file_is_refused(two_genomes):
    table, adata = two_genomes
    with pytest.raises(InputError, match="gene ids begin with ENSG: human genes, not mouse"):
        tokenize_cells(adata[:, :6].copy(), table, species="species")
    with pytest.raises(InputError, match="human genes, not mouse"):
        tokenize_cells(adata[2:, :8].copy(), table, species="mouse")


@pytest.mark.parametrize("window", [10_000, 5])
def test_genes_first_on_disk_gives_the_same_rows_as_cells_first(window):
    dense = np.random.default_rng(0).poisson(0.6, (37, 11)).astype(np.float32)
    genes_first = sparse.csc_matrix(dense)
    rows = CscRows(genes_first.data, genes_first.indices, genes_first.indptr, dense.shape, window_entries=window)
    for start, stop in ((0, 37), (5, 9), (36, 37)):
        blocks = list(rows.blocks(start, stop, 4))
        assert [first for first, _ in blocks] == list(range(start, stop, 4))
        np.testing.assert_array_equal(np.vstack([block.toarray() for _, block in blocks]), dense[start:stop])


def test_genes_of_other_cells_alone(two_genomes, caplog):
    table, adata = two_genomes
    other = ad.AnnData(sparse.csr_matrix(np.ones((1, 3))), var=pd.DataFrame(index=adata.var_names[[1, 3, 4]]))
    with caplog.at_level(logging.INFO, logger="genecompass"):
        cells = tokenize_cells(adata[:2, :6].copy(), table, species="human", shared_genes=other)
    assert all(len(cell["input_ids"]) == 3 for cell in cells)
    assert "3 left out as not shared" in caplog.text
    with pytest.raises(InputError, match="share no gene"):
        tokenize_cells(adata[:2, :1].copy(), table, species="human", shared_genes=other)
    assert open_cells(open_cells(adata), shared_genes=other).shared_genes.n_genes == 3


def test_selections_as_people_type_them():
    from genecompass.inference.perturbation.cell_fate import select_cells

    obs = pd.DataFrame(
        {
            "cluster": [0.0, 1.0, 2.0],
            "treated": [True, False, True],
            "kind": ["T cell, CD4", "T cell", " B  cell "],
            "day": pd.Categorical([3, 7, 3]),
        },
        index=list("abc"),
    )
    adata = ad.AnnData(np.ones((3, 1), dtype=np.float32), obs=obs)
    for where, expected in {
        "cluster=1": [False, True, False],
        "cluster=0,2": [True, False, True],
        "treated=True": [True, False, True],
        "treated=false": [False, True, False],
        "kind=T cell, CD4": [True, False, False],
        "kind=T cell,T cell, CD4": [True, True, False],
        "kind=B cell": [False, False, True],
        "day=3": [True, False, True],
    }.items():
        assert select_cells(adata, where).tolist() == expected, where
    with pytest.raises(InputError, match="no cell has kind 'NK'; there are B cell, T cell, T cell, CD4"):
        select_cells(adata, "kind=T cell,NK")


@pytest.mark.parametrize("packed", [False, True])
def test_matrices_as_archives_name_them(tmp_path, packed):
    import gzip
    import io

    from scipy.io import mmwrite

    counts = sparse.coo_matrix(np.array([[1, 0, 2], [0, 3, 0]]))  # cells by genes
    for sample in ("GSM1_a_", "GSM2_b_"):
        written = io.BytesIO()
        mmwrite(written, counts.T.astype(int), field="integer")
        files = {
            "matrix.mtx": written.getvalue(),
            "barcodes.tsv": b"AAA-1\nCCC-1\n",
            "features.tsv": b"ENSG1\tA\tGene Expression\nENSG2\tB\tGene Expression\nENSG3\tC\tGene Expression\n",
        }
        for name, content in files.items():
            path = tmp_path / f"{sample}{name}{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    one = tmp_path / f"GSM2_b_matrix.mtx{'.gz' if packed else ''}"
    assert next(open_cells(one).blocks())[1].toarray().tolist() == [[1, 0, 2], [0, 3, 0]]
    with pytest.raises(InputError, match=r"holds 2 matrices; name one of them, such as .*GSM1_a_matrix\.mtx"):
        open_cells(tmp_path)
    for path in tmp_path.glob("GSM1*"):
        path.unlink()
    assert open_cells(tmp_path).n_cells == 2


def test_packed_files_that_are_read_in_place_are_told(tmp_path):
    (tmp_path / "atlas.h5ad.gz").write_bytes(b"x")
    with pytest.raises(InputError, match=r"atlas\.h5ad\.gz: is packed; unpack it first"):
        open_cells(tmp_path / "atlas.h5ad.gz")


@pytest.mark.parametrize(
    ("text", "side", "about"),
    [
        (
            "# Program: featureCounts\nGeneid\tChr\tStart\tEnd\tStrand\tLength\ts1\ts2\n"
            "ENSG00000000001\tchr1\t5\t9\t+\t4\t1\t0\nENSG00000000002\tchr2\t1\t8\t-\t7\t2\t3\n",
            "var",
            ["Chr", "Start", "End", "Strand", "Length"],
        ),
        ("gene_id,gene_name,s1,s2\nENSG00000000001,A,1,0\nENSG00000000002,B,2,3\n", "var", ["gene_name"]),
        (";cell_type;ENSG00000000001;ENSG00000000002\ns1;T;1;2\ns2;B;0;3\n", "obs", ["cell_type"]),
        ("\ufeffname,ENSG00000000001,ENSG00000000002\ns1,1,2\ns2,0,3\n", "obs", []),
    ],
)
def test_tables_of_counts_with_columns_about_their_rows(tmp_path, text, side, about):
    path = tmp_path / "counts.txt"
    path.write_text(text, encoding="utf-8")
    cells = open_cells(path)
    assert list(getattr(cells, side).columns) == about
    assert (cells.obs.index.tolist(), cells.n_genes) == (["s1", "s2"], 2)
    assert next(cells.blocks())[1].toarray().tolist() == [[1, 2], [0, 3]]


def test_a_word_among_counts_is_told(tmp_path):
    (tmp_path / "c.csv").write_text("name,ENSG00000000001,ENSG00000000002\ns1,1,2\ns2,many,3\n")
    with pytest.raises(InputError, match="'many' in column 2 is not a number"):
        list(open_cells(tmp_path / "c.csv").blocks())
