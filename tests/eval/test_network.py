"""Network measures, checked by hand and against a second computation."""

import numpy as np
import pandas as pd
import pytest
from genecompass.eval.baselines.network import by_level, expression_level_network, random_precision
from genecompass.eval.metrics.network import (
    bootstrap_over_factors,
    early_precision,
    network_scores,
    precision_at_k,
    restrict_truth,
)
from genecompass.eval.tasks.grn import as_text, beeline_simulated, read_reference
from genecompass.eval.tasks.perturbation import read_targets
from genecompass.tokenization.errors import InputError
from hypothesis import given, settings
from hypothesis import strategies as st


def network(rows):
    return pd.DataFrame(rows, columns=["regulator", "target", "weight"])


TRUTH = pd.DataFrame({"Gene1": ["A", "A", "B", "B", "X"], "Gene2": ["C", "D", "C", "B", "C"], "Type": list("+--++")})


def test_reference_is_restricted_to_measured_genes_and_its_own_regulators():
    truth = restrict_truth(TRUTH, ["A", "B", "C", "D", "E"])
    assert truth.regulators == ("A", "B")
    assert truth.targets == ("A", "B", "C", "D")
    assert truth.n_edges == 3  # the self-edge and the unmeasured X are out
    assert truth.possible.sum() == 6
    assert truth.density == 0.5
    wide = restrict_truth(TRUTH, ["A", "B", "C", "D", "E"], all_genes=True, all_regulators=True)
    assert wide.possible.sum() == 20
    assert restrict_truth(TRUTH, ["A", "B", "C"], regulators=["B"]).regulators == ("B",)
    with pytest.raises(ValueError, match="spelling"):
        restrict_truth(TRUTH, ["a", "c"])


def test_scores_of_a_perfect_a_reversed_and_a_constant_network():
    truth = restrict_truth(TRUTH, ["A", "B", "C", "D"])
    true = [("A", "C", 0.9), ("A", "D", -0.8), ("B", "C", 0.7)]
    perfect = network([*true, ("A", "B", 0.1), ("B", "A", 0.1), ("B", "D", 0.1)])
    scores = network_scores(perfect, truth)
    assert scores["auroc"] == 1
    assert scores["auprc_ratio"] == pytest.approx(2)
    assert scores["early_precision_ratio"] == pytest.approx(2)
    assert scores["early_precision_activation_ratio"] == pytest.approx(4)
    reversed_ = perfect.assign(weight=1 - perfect["weight"].abs())
    assert network_scores(reversed_, truth)["auroc"] == 0
    constant = network_scores(perfect.assign(weight=0.5), truth)
    assert constant["auprc_ratio"] == pytest.approx(1)
    assert constant["early_precision_ratio"] == pytest.approx(1)
    # linear interpolation flatters ties: the reason why it is not the headline
    assert constant["auprc_trapezoid_ratio"] > 1.4
    assert network_scores(perfect.iloc[:0], truth)["early_precision_ratio"] == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]), st.booleans()), min_size=2, max_size=40))
def test_early_precision_counts_ties_and_leaves_zeros_out(pairs):
    scores, edges = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    if not edges.any():
        return
    k = int(edges.sum())
    ordered = sorted(scores, reverse=True)
    positive = [s for s in scores if s > 0]
    expected = 0.0
    if positive:
        cut = max(ordered[k - 1], min(positive))
        expected = np.mean([e for s, e in zip(scores, edges, strict=True) if s >= cut])
    assert early_precision(scores, edges) == pytest.approx(expected)


def test_baselines_and_lists():
    edges = expression_level_network([1.0, 5.0, 2.0], ["A"], ["A", "B", "C"], genes=["A", "B", "C"])
    assert edges.loc[edges["weight"].idxmax(), "target"] == "B"
    assert by_level([1.0, 2.0], ["A", "B"]) == ["B", "A"]
    assert precision_at_k(["A", "B", "C", "D"], {"A", "D"}, 2) == 0.5
    with pytest.raises(ValueError, match="1 or more"):
        precision_at_k(["A"], {"A"}, 0)
    assert random_precision(1, 4) == 0.25
    with pytest.raises(ValueError, match="among"):
        random_precision(5, 4)


def test_simulated_benchmark_finds_a_planted_network(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 300))
    expression = {"A": a, "B": b, "C": a + 0.2 * rng.normal(size=300), "D": -b + 0.2 * rng.normal(size=300)}
    table = pd.DataFrame(expression, index=[f"cell{i}" for i in range(300)]).T
    table.to_csv(tmp_path / "expression.csv")
    reference = pd.DataFrame({"Gene1": ["A", "B"], "Gene2": ["C", "D"], "Type": ["+", "-"]})
    reference.to_csv(tmp_path / "network.csv", index=False)
    methods = ["pearson", "spearman", "partial_correlation", "grnboost2", "random"]
    benchmark = beeline_simulated(tmp_path / "expression.csv", tmp_path / "network.csv", methods=methods, seeds=(0, 1))
    best = benchmark.runs.set_index("method")["auprc_ratio"]
    # direction is unknown to a correlation, so the two true edges tie with their reverse
    assert best["pearson"] >= 2.5
    assert best["pearson"] > best["random"].mean()
    assert len(benchmark.runs.query("method == 'random'")) == 2
    assert len(benchmark.runs.query("method == 'pearson'")) == 1
    assert "| random |" in as_text(benchmark)
    with pytest.raises(InputError, match="not a method"):
        beeline_simulated(tmp_path / "expression.csv", tmp_path / "network.csv", methods=["magic"])
    with pytest.raises(InputError, match="no such"):
        beeline_simulated(tmp_path / "nothing.csv", tmp_path / "network.csv")


def test_reference_files(tmp_path):
    with pytest.raises(InputError, match="no such reference"):
        read_reference(tmp_path / "none.csv")
    (tmp_path / "one.csv").write_text("Gene1\nA\n")
    with pytest.raises(InputError, match="two columns"):
        read_reference(tmp_path / "one.csv")
    (tmp_path / "trrust.tsv").write_text("AATF\tBAX\tRepression\t1\nAATF\tKLK3\tUnknown\t2\n")
    assert read_targets(tmp_path / "trrust.tsv") == {"AATF": {"BAX", "KLK3"}}
    (tmp_path / "dorothea.tsv").write_text("tf\tconfidence\ttarget\tmor\nA\tA\tB\t1\nA\tE\tC\t1\n")
    assert read_targets(tmp_path / "dorothea.tsv") == {"A": {"B"}}
    (tmp_path / "beeline.csv").write_text("Gene1,Gene2\nA,B\n")
    assert read_targets(tmp_path / "beeline.csv") == {"A": {"B"}}


def test_gsd_reference_is_read_whole(data):
    reference = read_reference(data / "beeline" / "synthetic_GSD_GroundTruthNetwork.csv.gz")
    truth = restrict_truth(
        reference, set(reference["Gene1"]) | set(reference["Gene2"]), all_genes=True, all_regulators=True
    )
    assert len(truth.targets) == 19
    assert truth.possible.sum() == 19 * 18
    assert truth.n_edges == 76


def test_intervals_come_from_drawing_whole_regulators_anew():
    rng = np.random.default_rng(0)
    regulators, targets = [f"R{i}" for i in range(12)], [f"T{i}" for i in range(40)]
    known = rng.random((12, 40)) < 0.2
    pairs = [(r, t) for i, r in enumerate(regulators) for j, t in enumerate(targets) if known[i, j]]
    truth = restrict_truth(pd.DataFrame(pairs, columns=["Gene1", "Gene2"]), [*regulators, *targets])
    # half of the regulators are inferred well, the others not at all: the interval must be wide
    weight = np.where(np.arange(12)[:, None] < 6, known + 0.5 * rng.random((12, 40)), rng.random((12, 40)))
    table = pd.DataFrame(
        [(r, t, weight[i, j]) for i, r in enumerate(regulators) for j, t in enumerate(targets)],
        columns=["regulator", "target", "weight"],
    )
    scores, ends = network_scores(table, truth), bootstrap_over_factors(table, truth, n=300)
    for name in ("auroc", "auprc_ratio", "early_precision_ratio"):
        assert ends[f"{name}_low"] < scores[name] < ends[f"{name}_high"]
    assert ends["auroc_high"] - ends["auroc_low"] > 0.1
    few = restrict_truth(pd.DataFrame(pairs[:1], columns=["Gene1", "Gene2"]), [*regulators, *targets], all_genes=True)
    assert np.isnan(bootstrap_over_factors(table, few)["auroc_low"])
