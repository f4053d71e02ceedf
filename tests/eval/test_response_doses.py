"""Doses: what is read, simple methods by hand, the network's curves, the benchmark."""

import anndata
import numpy as np
import pandas as pd
import pytest
from genecompass.eval.baselines.response_doses import dose_baselines
from genecompass.eval.metrics.response import effect_scores
from genecompass.eval.tasks import response_simulation as task
from genecompass.eval.tasks.response_doses import benchmark_doses
from genecompass.inference.response.dose_network import fit_doses
from genecompass.inference.response.doses import DoseEffects, read_dose_effects
from genecompass.inference.response.fit import FitSettings
from genecompass.inference.response.simulation import SimulationOptions
from genecompass.tokenization.errors import InputError

from genecompass.cli import main

QUICK = FitSettings(epochs=60, patience=60, learning_rate=1e-2)


def hill_effects(drugs=4, genes=30, seed=0):
    generator = np.random.default_rng(seed)
    rows = [(f"D{i}", dose) for i in range(drugs) for dose in (0.1, 0.3, 1.0, 3.0, 10.0)]
    full = {f"D{i}": generator.normal(size=genes) for i in range(drugs)}
    delta = np.stack([full[d] * x / (x + 1.0) for d, x in rows])
    n = np.full(len(rows), 9)
    names = tuple(f"g{i}" for i in range(genes))
    return DoseEffects(tuple(d for d, _ in rows), ("",) * len(rows), np.array([x for _, x in rows]), names, delta, n)


def cells(**obs):
    n = len(next(iter(obs.values())))
    X = np.random.default_rng(0).poisson(4, (n, 5)).astype(float)
    return anndata.AnnData(X, obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(n)]))


def test_each_covariate_is_compared_with_its_own_control():
    adata = cells(drug=["v", "a", "v", "a"], dose=[0, 1, 0, 1], line=["x", "x", "y", "y"])
    effects = read_dose_effects(adata, "drug", dose="dose", covariate="line")
    assert effects.names == ["a 1 x", "a 1 y"]
    from genecompass.inference.response.effects import log_normalised

    X = log_normalised(adata.X)
    np.testing.assert_allclose(effects.delta, [X[1] - X[0], X[3] - X[2]])


@pytest.mark.parametrize(
    ("obs", "options", "message"),
    [
        ({"drug": ["v", "a"], "dose": ["0", "1 uM"]}, {"dose": "dose"}, "'1 uM'"),
        ({"drug": ["v", "a"]}, {"control": "DMSO"}, "no row has 'DMSO'"),
        ({"drug": ["v", "v"]}, {"control": "v"}, "every row is control"),
        ({"drug": ["v", "a"], "line": ["x", "y"]}, {"control": "v", "covariate": "line"}, "no control row"),
        ({"drug": ["v", "a"]}, {"layer": "z"}, "no layer 'z'"),
    ],
)
def test_bad_input_is_one_line(obs, options, message):
    with pytest.raises(InputError, match=message):
        read_dose_effects(cells(**obs), "drug", **options)


def test_four_rows_as_sci_plex_has_them():
    adata = cells(condition=["control", "BMS", "BMS", "SAHA"], dose_val=[0, 0.1, 1, 1], cell_type=["A549"] * 4)
    effects = read_dose_effects(adata, "condition", dose="dose_val", covariate="cell_type", control="control")
    assert len(effects) == 3


def test_simple_methods_by_hand():
    known = DoseEffects(
        ("a", "a", "b"), ("",) * 3, np.array([1.0, 100.0, 1.0]), ("x",), np.array([[1.0], [3], [5]]), np.ones(3)
    )
    wanted = DoseEffects(("a", "new"), ("",) * 2, np.array([10.0, 1.0]), ("x",), np.zeros((2, 1)), np.ones(2))
    found = {name: values.ravel().tolist() for name, values in dose_baselines(known, wanted).items()}
    assert found["no change"] == [0, 0]
    assert found["train mean"] == [3, 3]
    assert found["drug mean over doses"] == [2, 3]
    assert found["nearest lower dose"] == [1, 3]
    assert found["line in log dose"][0] == pytest.approx(2)


def test_hill_curves_are_found():
    effects = hill_effects()
    test = np.flatnonzero(effects.doses == 1.0)
    known = effects.take(np.setdiff1d(np.arange(len(effects)), test))
    found = dose_baselines(known, effects.take(test))
    truth = effects.delta[test]
    error = {name: np.sqrt(np.mean((values - truth) ** 2)) for name, values in found.items()}
    assert error["Hill curve"] < 0.05 < error["nearest lower dose"]


def test_the_network_grows_with_the_dose_from_nothing():
    model = fit_doses(hill_effects(), settings=QUICK)
    doses = np.array([0.0, 0.1, 1.0, 10.0])
    size = np.linalg.norm(model.predict(["D0"] * 4, doses), axis=1)
    assert size[0] == 0
    assert (np.diff(size) > 0).all()
    assert np.isfinite(model.predict(["new"], [1.0])).all()
    with pytest.raises(InputError, match="was not in the data"):
        model.ec50("new")
    again = fit_doses(hill_effects(), settings=QUICK)
    np.testing.assert_array_equal(again.predict(["D1"], [1.0]), model.predict(["D1"], [1.0]))


def test_half_maximal_doses():
    small = SimulationOptions(genes=60, regulators=2, pairs=0, control_cells=200)
    claim = task._half_doses(small, (0,), None)
    assert claim.passed, claim


def test_held_out_values_take_turns_and_are_not_read():
    effects = hill_effects()
    benchmark = benchmark_doses(effects, seeds=(0,), settings=FitSettings(epochs=5))
    assert benchmark.conditions["group"].nunique() == 5
    drugs = benchmark_doses(effects, seeds=(0,), split="drug", network=False)
    assert set(drugs.conditions["group"]) == {"drug D0", "drug D1", "drug D2", "drug D3"}
    with pytest.raises(InputError, match="only one covariate"):
        benchmark_doses(effects, split="covariate")


def test_from_the_command_line(tmp_path, capsys):
    adata = cells(drug=["v"] * 4 + ["a"] * 4 + ["b"] * 4, dose=[0] * 4 + [0.1, 0.1, 1, 1] * 2)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    words = ["benchmark", "response-doses", tmp_path / "cells.h5ad", "--dose", "dose", "--no-networks"]
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, words), "-o", str(tmp_path / "doses.csv")])
    assert stopped.value.code == 0
    assert "Hill curve" in capsys.readouterr().out
    assert (tmp_path / "doses.json").exists()


def test_on_a_real_plate(data):
    source = data / "response/l1000_ljp005_a375/l1000_ljp005_a375.h5ad"
    effects = read_dose_effects(str(source), "pert_iname", dose="pert_dose", control="DMSO", layer="level4_zscore")
    test = np.flatnonzero(effects.doses == 3.33)
    known, wanted = effects.take(np.setdiff1d(np.arange(len(effects)), test)), effects.take(test)
    found = dose_baselines(known, wanted)
    pearson = {
        name: effect_scores(wanted.delta, values, reference=known.delta.mean(axis=0))["pearson"].mean()
        for name, values in found.items()
    }
    assert pearson["drug mean over doses"] > 0.3 > pearson["train mean"] > pearson["no change"]
