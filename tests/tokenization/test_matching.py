import anndata
import numpy as np
import pandas as pd
import pytest
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_index import GeneIndex, bare_gene_id
from genecompass.tokenization.matching import match_genes


def _match(names, table, species="human", columns=None, **kw):
    return match_genes(pd.DataFrame(columns or {}, index=list(names)), table, species=species, **kw)


def test_ids_with_and_without_version_and_symbols(table):
    names = ["ENSG00000000003", "ENSG00000000004.7", "ENSG00000000005.2_PAR_Y", "GRCh38_ENSG00000000006"]
    assert _match(names, table).column_token.tolist() == [5, 6, 7, 8]
    assert _match(["HGENE1", "HGENE2", "nothing"], table).column_token.tolist() == [3, 4, -1]
    assert bare_gene_id("ENSMUSG00000000001.4") == "ENSMUSG00000000001"
    assert bare_gene_id("ENSG1") is None


def test_old_names_resolve_and_ambiguous_ones_are_reported(table):
    match = _match(["HGENE9", "OLD1", "ALIAS2", "SHARED"], table)
    assert match.column_token.tolist() == [11, 3, 4, -1]
    report = match.report
    assert (report.by_symbol, report.by_previous, report.by_alias, report.ambiguous) == (1, 1, 1, 1)
    assert report.ambiguous_names == ["SHARED"]


def test_an_old_name_beside_the_gene_itself_is_not_summed(table):
    match = _match(["HGENE1", "OLD1"], table)
    assert match.column_token.tolist() == [3, -1]
    assert match.report.ambiguous == 1


def test_an_antibody_named_like_a_gene_with_an_id_is_not_summed(table):
    ids = ["ENSG00000000001", "ENSG00000000002", ""]
    match = _match(["HGENE1", "HGENE2", "HGENE1"], table, columns={"gene_ids": ids})
    assert match.column_token.tolist() == [3, 4, -1]


def test_unique_names_are_undone(table):
    assert _match(["HGENE1", "HGENE1-1", "OTHER-1"], table).column_token.tolist() == [3, 3, -1]


def test_an_unknown_id_is_unknown_unless_rescued(table):
    columns = {"ensembl_id": ["ENSG00000000001", "ENSG00000999999", "ENSG00000999998"]}
    names = ["HGENE1", "HGENE2", "HGENE1"]
    match = _match(names, table, columns=columns)
    assert match.column_token.tolist() == [3, -1, -1]
    assert match.report.rescuable == 1
    assert _match(names, table, columns=columns, rescue_ids=True).column_token.tolist() == [3, 4, -1]


def test_named_column(table):
    columns = {"mine": ["ENSG00000000007", "HGENE8"]}
    assert _match(["HGENE1", "HGENE2"], table, columns=columns, column="mine").column_token.tolist() == [9, 10]
    with pytest.raises(InputError, match="no var column 'yours'; there are: mine"):
        _match(["HGENE1", "HGENE2"], table, columns=columns, column="yours")


def test_symbols_in_a_column_when_the_index_is_numbers(table):
    match = _match(["0", "1"], table, columns={"gene_symbol": ["HGENE1", "HGENE2"]})
    assert match.column_token.tolist() == [3, 4]


def test_mouse_genes_take_human_tokens_and_keep_their_medians(table):
    match = _match(["Hgene3", "Hgene25"], table, species="mouse")
    own = [2 + 40 + 3, 2 + 40 + 25]
    assert match.column_token.tolist() == own
    assert match.cell_token.tolist() == [5, own[1]]
    np.testing.assert_array_equal(match.column_median, table.medians[own])
    assert match.report.homolog_mapped == 1


def test_mouse_cells_with_human_ids(table):
    by_human = _match(["ENSG00000000003", "ENSG00000000030"], table, species="mouse", gene_species="human")
    # gene 3 has a mouse homolog: its own token and median; gene 30 has none and stays human
    assert by_human.column_token.tolist() == [45, 32]
    assert by_human.cell_token.tolist() == [5, 32]
    assert by_human.column_median[0] == table.medians[45]


def test_shared_tokens_have_one_scale(table):
    frame = table.frame.copy()
    frame.loc[42 + 21, "homolog_token"] = frame.loc[42 + 3, "homolog_token"]
    shared = type(table)(frame)
    match = _match(["Hgene3", "Hgene21"], shared, species="mouse")
    assert match.cell_token.tolist() == [5, 5]
    assert match.column_median.tolist() == [table.medians[45]] * 2
    alone = _match(["Hgene21"], shared, species="mouse")
    assert alone.column_median.tolist() == [table.medians[45]]


class TestWrongSpecies:
    def test_ids(self, table):
        names = [f"ENSMUSG{i:011d}" for i in range(20)]
        with pytest.raises(InputError, match=r"begin with ENSMUSG: mouse genes, not human; pass species='mouse'"):
            _match(names, table)

    def test_human_ids_in_mouse_cells_name_the_way_out(self, table):
        names = [f"ENSG{i:011d}" for i in range(20)]
        with pytest.raises(InputError, match="gene_species='human'"):
            _match(names, table, species="mouse")

    def test_symbols_of_the_other_species(self, table):
        with pytest.raises(InputError, match="written as mouse symbols"):
            _match([f"Hgene{i}" for i in range(20)], table)

    def test_symbols_of_a_species_that_the_table_does_not_know(self, table):
        human = type(table)(table.frame[table.frame["species"] != "mouse"].reset_index(drop=True))
        with pytest.raises(InputError, match="only when capitals are ignored"):
            _match([f"Hgene{i}" for i in range(20)], human)

    def test_unknown_species(self, table):
        with pytest.raises(InputError, match="unknown species 'rat'; this vocabulary knows human, mouse"):
            _match(["HGENE1"], table, species="rat")

    def test_nothing_matches(self, table):
        with pytest.raises(InputError, match=r"none of the 2 genes is known as a human gene .*'a', 'b'"):
            _match(["a", "b"], table)


def test_index_survives_its_file(table, tmp_path):
    table.index.write(tmp_path / "genes.tsv.gz")
    again = GeneIndex.read(tmp_path / "genes.tsv.gz")
    assert again.columns().keys() == table.index.columns().keys()
    for name in ("gene_id", "symbol", "homolog_token", "alias_symbols"):
        assert again.columns()[name] == table.index.columns()[name]
    np.testing.assert_array_equal(again.known_medians, table.index.known_medians)
    first = (tmp_path / "genes.tsv.gz").read_bytes()
    again.write(tmp_path / "genes.tsv.gz")
    assert (tmp_path / "genes.tsv.gz").read_bytes() == first
    read = type(table).read(tmp_path / "genes.tsv.gz")
    pd.testing.assert_frame_equal(read.frame, table.frame, check_dtype=False)


def test_coverage_of_a_real_file(data):
    from genecompass.dataset_scripts.vocabulary import from_data

    adata = anndata.read_h5ad(data / "mouse_brain_merfish/mouse_brain_merfish_1000.h5ad")
    report = match_genes(adata.var, from_data(adata, "mouse"), species="mouse").report
    assert report.matched == 1122
