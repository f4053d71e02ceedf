"""Names, species and matrices as people's files have them; what is hardly understood is refused."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from genecompass.tokenization.coverage import CoverageReport, judge
from genecompass.tokenization.devices import check_device
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_index import bare_gene_id
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.matching import match_genes
from genecompass.tokenization.readers import open_cells
from genecompass.tokenization.tokenize import tokenize_cells

SYMBOLS = ["INS", "HLA-DRA", "TBCE", "MT-CO1", "EGR1", "CD3D", "GCG", "SST"]


@pytest.fixture
def table():
    genes = pd.DataFrame(
        {
            "gene_id": [f"ENSG{i:011d}" for i in range(1, 9)],
            "symbol": SYMBOLS,
            "species": "human",
            "alias_symbols": ["", "", "", "", "225|A1", "", "", ""],
        }
    )
    mouse = pd.DataFrame({"gene_id": ["ENSMUSG00000000001"], "symbol": ["Ins2"], "species": "mouse"})
    return GeneTable.from_genes(pd.concat([genes, mouse], ignore_index=True))


def cells(names, **var):
    names = list(names)
    counts = np.arange(1, 3 * len(names) + 1, dtype=np.float32).reshape(3, len(names))
    return ad.AnnData(counts, var=pd.DataFrame(var, index=pd.Index(names)))


@pytest.mark.parametrize("column", ["my ids", "ENSEMBL", "probe"])
def test_ids_are_found_in_any_column_of_text(table, column):
    adata = cells(map(str, range(8)), **{column: table.frame["gene_id"].iloc[2:10].tolist()})
    assert (match_genes(adata.var, table, species="human").column_token == np.arange(2, 10)).all()


@pytest.mark.parametrize("column", ["Symbol of gene", "hgnc"])
def test_symbols_are_found_in_any_column_of_text(table, column):
    adata = cells(map(str, range(8)), **{column: SYMBOLS})
    assert (match_genes(adata.var, table, species="human").column_token == np.arange(2, 10)).all()


def test_numbers_and_short_names_are_no_aliases_where_nothing_else_is_known(table):
    with pytest.raises(InputError, match="none of the 4 genes"):
        match_genes(cells(["225", "x", "y", "z"]).var, table, species="human")
    with pytest.raises(InputError, match="none of the 4 genes"):
        match_genes(cells(["A1", "x", "y", "z"]).var, table, species="human")
    assert match_genes(cells(["A1", *SYMBOLS[:4]]).var, table, species="human").column_token[0] == 6


@pytest.mark.parametrize(
    ("name", "token"), [("HLA.DRA", 3), ("MT.CO1", 5), ("hg19:INS", 2), ("GRCh38-CD3D", 7), ("GRCh38___INS", 2)]
)
def test_names_as_other_tools_write_them(table, name, token):
    assert match_genes(cells([name, "SST"]).var, table, species="human").column_token.tolist() == [token, 9]


def test_r_and_anndata_number_repeated_names(table):
    for again in ("TBCE.1", "TBCE-1"):
        assert match_genes(cells(["TBCE", again]).var, table, species="human").column_token.tolist() == [4, 4]


def test_an_id_within_a_name_counts():
    assert bare_gene_id("INS_ENSG00000254647.7") == "ENSG00000254647"
    assert bare_gene_id("ENSG00000254647|INS") == "ENSG00000254647"
    assert bare_gene_id("ENSG00000254647_ENSG00000254648") is None


@pytest.mark.parametrize("spelling", ["Homo sapiens", "NCBITaxon:9606", "Human", "homo_sapiens"])
def test_species_as_the_field_spells_them(table, spelling):
    assert tokenize_cells(cells(SYMBOLS), table, species=spelling).species.tolist() == [0, 0, 0]
    adata = cells(SYMBOLS)
    adata.obs["organism"] = spelling
    assert tokenize_cells(adata, table, species="organism").species.tolist() == [0, 0, 0]


def test_what_is_hardly_understood_is_refused_and_half_is_warned_of(table, caplog):
    adata = cells(["INS", *[f"unknown {i}" for i in range(40)]])
    with pytest.raises(InputError, match="hold 126 of 7,626 counts"):
        tokenize_cells(adata, table, species="human")
    assert len(tokenize_cells(adata, table, species="human", min_coverage=0)) == 3
    with caplog.at_level(logging.INFO, logger="genecompass"):
        tokenize_cells(cells(["INS", "a", "b", "c"]), table, species="human")
    assert "less than half" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="genecompass"):
        tokenize_cells(cells(SYMBOLS), table, species="human")
    assert "8 of 8 genes matched" in caplog.text
    assert "100.0% of counts" in caplog.text


def test_no_counts_are_no_reason_to_refuse():
    judge(
        CoverageReport.of(["INS"], np.array([2]), mapped=np.zeros(1, bool), species="human"),
        source="x",
        counts_from="X",
    )


def test_antibodies_are_not_genes():
    adata = cells(
        ["CD4", "CD4_TotalSeq", "INS"], feature_types=["Gene Expression", "Antibody Capture", "Gene Expression"]
    )
    source = open_cells(adata)
    assert source.var.index.tolist() == ["CD4", "INS"]
    assert next(source.blocks())[1].toarray().tolist()[0] == [1, 3]
    other = cells(["CD4", "guide"], feature_type=["Gene Expression", "CRISPR Guide Capture"])
    assert open_cells(other).n_genes == 1


def test_whole_counts_come_before_a_part_of_them():
    adata = cells(SYMBOLS)
    adata.layers["spliced"] = adata.X - 1
    assert open_cells(adata).counts_from == "X"
    adata.X = np.log1p(adata.X)
    assert open_cells(adata).counts_from == "spliced"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu7"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(InputError, match="device"):
        check_device(name)
