"""Scores of responses by hand, baselines, and the benchmark without leaks."""

import numpy as np
import pytest
from genecompass.eval.baselines.response import Known, additive, gene_baselines, table_ridge
from genecompass.eval.metrics.response import (
    clustered_interval,
    correlation,
    direction,
    discrimination,
    effect_scores,
    energy_distance,
    overlap,
    r_squared,
)
from genecompass.eval.tasks.response_genes import CEILING, as_text, benchmark_genes, differences_as_text
from genecompass.inference.response.effects import effects_of_table, read_effects
from genecompass.inference.response.features import GeneFeatures
from genecompass.inference.response.splits import split_by_gene

from genecompass.cli import main


def additive_effects(seed=0, n=10, genes=40, noise=0.05):
    generator = np.random.default_rng(seed)
    single = {f"P{i}": generator.normal(size=genes) for i in range(n)}
    names = [(p,) for p in single] + [(f"P{i}", f"P{j}") for i in range(n) for j in range(i)]
    delta = np.stack([sum(single[p] for p in c) + noise * generator.normal(size=genes) for c in names])
    return effects_of_table(delta, [f"g{i}" for i in range(genes)], ["+".join(c) for c in names])


def test_scores_by_hand():
    truth = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    predicted = np.array([[1.0, 2.0, 5.0], [0.0, 0.0, 0.0]])
    scores = effect_scores(truth, predicted, reference=np.zeros(3), top=np.array([[2], [0]]))
    np.testing.assert_allclose(scores["rmse"], [np.sqrt(4 / 3), np.sqrt(14 / 3)])
    np.testing.assert_allclose(scores["mse_top"], [4, 9])
    assert scores["pearson"][1] == 0.0
    assert scores["spearman"].tolist() == [1.0, 0.0]
    assert scores["direction_top"].tolist() == [1.0, 0.5]
    assert scores["discrimination"].tolist() == [1.0, 0.5]
    left = np.array([[False, False, True], [False, False, False]])
    assert effect_scores(truth, predicted, reference=np.zeros(3), left_out=left)["rmse"][0] == 0


def test_a_constant_prediction_says_nothing():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(40, 200))
    mean = np.repeat(generator.normal(size=(1, 200)), 40, axis=0)
    scores = effect_scores(truth, mean, reference=mean[0])
    assert (scores["pearson_reference"] == 0).all()
    assert abs(np.nanmean(scores["discrimination"]) - 0.5) < 1e-9
    assert overlap(truth[0], np.zeros(200), 50) == pytest.approx(50 / 200)
    assert direction(truth[0], np.zeros(200)) == 0.5


def test_random_labels_discriminate_by_chance():
    generator = np.random.default_rng(1)
    truth, predicted = generator.normal(size=(60, 100)), generator.normal(size=(60, 100))
    mean, low, high = clustered_interval(discrimination(truth, predicted), np.arange(60))
    assert low < 0.5 < high
    assert discrimination(truth, truth + 0.01).min() == 1.0
    assert np.isnan(discrimination(truth[:1], truth[:1])).all()
    assert mean == pytest.approx(0.5, abs=0.1)


def test_other_measures():
    assert correlation(np.array([1.0, 2, 4]), np.array([1.0, 2, 4])) == pytest.approx(1)
    assert r_squared(np.array([1.0, 2, 3]), np.array([1.0, 2, 3])) == 1
    generator = np.random.default_rng(0)
    near, far = generator.normal(size=(50, 3)), generator.normal(5, 1, size=(50, 3))
    assert abs(energy_distance(near[:25], near[25:])) < 0.3 < energy_distance(near, far)


def test_unseen_genes_get_the_mean_and_known_ones_their_sum():
    effects = additive_effects(noise=0.0)
    known = Known(effects.delta, effects.conditions.genes, effects.genes)
    np.testing.assert_allclose(
        additive(known, [("P1", "P2")])[0], effects.delta[effects.conditions.names.index("P1+P2")]
    )
    found = gene_baselines(known, [("new",)])
    np.testing.assert_allclose(found["learned additive"], found["mean of order"], atol=1e-9)


def test_a_table_that_means_something_beats_its_shuffled_twin():
    generator = np.random.default_rng(0)
    table, W = generator.normal(size=(60, 4)), generator.normal(size=(4, 50))
    names = [f"P{i}" for i in range(60)]
    effects = effects_of_table(table @ W, [f"g{i}" for i in range(50)], names)
    benchmark = benchmark_genes(effects, seeds=(0, 1), tables=[GeneFeatures("planted", tuple(names), table)])
    apart = benchmark.differences([("ridge on planted", "ridge on planted shuffled")], metrics=("pearson",))
    assert apart["verdict"].tolist() == ["better"]
    mean = benchmark.table().set_index("method")["discrimination_mean"]
    assert mean["ridge on planted"] > 0.95
    assert 0.3 < mean["ridge on planted shuffled"] < 0.7


def test_predictions_do_not_see_what_is_tested():
    effects = additive_effects()
    split = split_by_gene(effects.conditions.genes, seed=0)
    test = np.concatenate(list(split.test.values()))
    known = Known(effects.delta[split.known], tuple(effects.conditions.genes[i] for i in split.known), effects.genes)
    wanted = [effects.conditions.genes[i] for i in test]
    one = gene_baselines(known, wanted)
    backwards = gene_baselines(known, wanted[::-1])
    for name, values in one.items():
        np.testing.assert_array_equal(values, backwards[name][::-1], err_msg=name)
    table = GeneFeatures("t", tuple(f"P{i}" for i in range(10)), np.random.default_rng(0).normal(size=(10, 3)))
    np.testing.assert_allclose(table_ridge(known, wanted[:1], table), table_ridge(known, wanted, table)[:1])


def test_same_seed_same_scores_and_a_record():
    effects = additive_effects()
    one, two = (benchmark_genes(effects, seeds=(0,)) for _ in range(2))
    assert one.conditions.equals(two.conditions)
    rows = one.record()["rows"]
    assert {"dataset", "method", "metric", "mean", "std", "seeds", "ours"} <= set(rows[0])
    assert "learned additive" in as_text(one)
    assert differences_as_text(one.differences([("absent", "learned additive")])) == ""


def test_on_real_pairs(data, tmp_path, capsys):
    source = data / "response/carpool2023_effects/carpool2023_effects.h5ad"
    benchmark = benchmark_genes(read_effects(str(source), "perturbation"), seeds=(1, 2))
    seen = benchmark.table().query("group == 'pair_seen2'").set_index("method")
    assert seen.loc["learned additive", "pearson_mean"] > 0.75
    assert seen.loc[CEILING, "pearson_mean"] > 0.8
    assert seen.loc["no change", "discrimination_mean"] == pytest.approx(0.5, abs=0.1)
    main_output = tmp_path / "genes.csv"
    with pytest.raises(SystemExit) as stopped:
        main(["benchmark", "response-genes", str(source), "--seeds", "0", "--no-networks", "-o", str(main_output)])
    assert stopped.value.code == 0
    assert main_output.exists()
    assert main_output.with_suffix(".json").exists()
    assert "learned additive" in capsys.readouterr().out
