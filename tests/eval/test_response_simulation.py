"""Claims about simulated data, small, and the network's arms in the benchmark."""

from dataclasses import replace

import numpy as np
from genecompass.eval.tasks import response_simulation as task
from genecompass.eval.tasks.response_arms import compared, network_arms
from genecompass.eval.tasks.response_genes import benchmark_genes
from genecompass.inference.response.effects import read_effects
from genecompass.inference.response.fit import FitSettings
from genecompass.inference.response.genes import GeneOptions
from genecompass.inference.response.simulation import SimulationOptions, simulate_genes

SMALL = SimulationOptions(genes=60, regulators=24, pairs=60, cells=25, control_cells=150, width=3)
QUICK = GeneOptions(hidden=16, fit=FitSettings(epochs=20))


def test_additive_data_stay_additive():
    claim = task._additive(SMALL, (0,), QUICK)
    assert claim.passed, claim


def test_a_planted_table_is_found_and_its_twin_is_not():
    claim = task._table(replace(SMALL, regulators=40, rho=0.9), (0,), QUICK)
    assert claim.passed, claim


def test_no_effect_stays_none():
    claim = task._no_effect(SMALL, (0,), QUICK)
    assert claim.passed, claim


def test_a_report_says_what_failed():
    report = task.SimulationReport([task.Claim("a", True, "1"), task.Claim("b", False, "2")], {})
    assert report.as_text().splitlines()[1] == "FAIL  b: 2"
    assert report.record()["claims"][0]["passed"]


def test_arms_run_in_the_benchmark_and_do_not_see_the_test():
    found = simulate_genes(SMALL)
    effects = read_effects(found.adata, "condition", control="control")
    arms = network_arms([found.table], cells=found.adata, options=GeneOptions(8, fit=FitSettings(epochs=2)))
    benchmark = benchmark_genes(effects, seeds=(0,), tables=[found.table], arms=arms)
    assert set(arms) <= set(benchmark.conditions["method"])
    table = benchmark.differences(compared([found.table], networks=True))
    assert {"network on planted", "network, learned", "network on random"} <= set(table["method"])
    # permuting what is tested does not change what is predicted
    from genecompass.inference.response.splits import split_by_gene

    split = split_by_gene(effects.conditions.genes, seed=0)
    test = np.concatenate(list(split.test.values()))
    other = effects.delta.copy()
    other[test] = other[np.random.default_rng(0).permutation(test)]
    wanted = [effects.conditions.genes[i] for i in test]
    one = arms["network on planted"](effects, split, wanted, 0)
    two = arms["network on planted"](replace(effects, delta=other), split, wanted, 0)
    np.testing.assert_array_equal(one, two)
