import numpy as np
import pandas as pd
import pytest
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.matching import match_genes
from genecompass.tokenization.quality import CODING_GENES, GENES, MITO_FRACTION, TOTAL, QualityControl, measure_cells
from genecompass.tokenization.tokenize import tokenize_cells
from scipy import sparse


def _measures(total=(), genes=(), coding=(), mito=()):
    measures = np.zeros((len(total), 4))
    for column, values in ((TOTAL, total), (GENES, genes), (CODING_GENES, coding), (MITO_FRACTION, mito)):
        measures[:, column] = values
    return measures


def test_measures(table):
    names = ["HGENE1", "HGENE35", "MT-CO1", "unknown", "HGENE1-1"]
    match = match_genes(pd.DataFrame(index=names), table, species="human")
    block = sparse.csr_matrix(np.array([[2, 1, 3, 4, 5], [0, 0, 0, 7, 0]]))
    measured = measure_cells(block, match, table)
    # HGENE1 twice is one gene; HGENE35 and MT-CO1 are lncRNA in this vocabulary
    np.testing.assert_allclose(measured[0], [15, 3, 1, 0.2])
    np.testing.assert_allclose(measured[1], [7, 0, 0, 0])


def test_paper():
    genes = np.full(40, 500.0)
    genes[:3] = 0, 150, 5000
    measures = _measures(total=genes * 3, genes=genes, coding=np.full(40, 100.0), mito=np.full(40, 0.05))
    measures[3, CODING_GENES] = 6
    measures[4, MITO_FRACTION] = 0.16
    measures[5, MITO_FRACTION] = 0.15
    samples = np.array(["big"] * 37 + ["tiny"] * 3)
    decision = QualityControl.named("paper").decide(measures, samples)
    assert decision.removed == {
        "empty": 1, "min_genes": 1, "min_coding_genes": 1, "max_mito_fraction": 1, "genes_sd": 1, "min_cells": 3,
    }  # fmt: skip
    assert decision.removed_by_sample["tiny"]["min_cells"] == 3
    assert decision.keep.sum() == 32
    assert decision.keep[5]


def test_published_code():
    total = np.full(50, 1000.0)
    total[:2] = 0, 90_000
    measures = _measures(total=total, genes=total / 4, coding=np.full(50, 100.0), mito=np.full(50, 0.01))
    measures[2, MITO_FRACTION] = 0.9
    measures[3, CODING_GENES] = 6
    decision = QualityControl.named("published_code").decide(measures)
    assert decision.removed == {"empty": 1, "min_coding_genes": 1, "counts_sd": 1, "mito_sd": 1}


def test_cells_all_alike_are_all_kept():
    same = np.full(10, 300.0)
    decision = QualityControl.named("paper").decide(_measures(same, same, same, same * 0))
    assert decision.keep.all()


def test_without_biotypes_the_coding_rule_is_left_out():
    few = np.full(10, 300.0)
    decision = QualityControl.named("paper").decide(_measures(few, few, few * 0, few * 0), has_biotypes=False)
    assert decision.keep.all()


def test_through_tokenize_with_samples(adata, table):
    dense = adata.X.toarray()
    dense[4] = 0
    dense[7, 5:] = 0
    adata.X = sparse.csr_matrix(dense)
    cells = tokenize_cells(adata, table, species="human", quality=QualityControl(min_genes=8), sample="batch")
    assert cells.report.removed == {"empty": 1, "min_genes": 1}
    assert cells.report.removed_by_sample == {"a": {"empty": 1, "min_genes": 1}, "b": {"empty": 0, "min_genes": 0}}
    assert 4 not in cells.rows
    assert 7 not in cells.rows
    assert "1 min_genes" in str(cells.report)


def test_nothing_left(adata, table):
    with pytest.raises(InputError, match=r"no cells left of 25 \(min_genes: 25\)"):
        tokenize_cells(adata, table, species="human", quality="paper")


def test_unknown_name_and_sample(adata, table):
    with pytest.raises(InputError, match="unknown quality control 'strict'; choose one of paper"):
        tokenize_cells(adata, table, species="human", quality="strict")
    with pytest.raises(InputError, match="no obs column 'donor'; there are batch"):
        tokenize_cells(adata, table, species="human", quality="paper", sample="donor")


def test_presets_do_nothing_to_good_cells():
    rng = np.random.default_rng(0)
    genes = rng.normal(1500, 50, 200).round()
    good = _measures(genes * 3, genes, genes * 0.9, np.full(200, 0.03))
    for preset in ("paper", "published_code", "none"):
        assert QualityControl.named(preset).decide(good).keep.mean() > 0.98
