"""The simulator's truth is what its cells show."""

from dataclasses import replace

import numpy as np
import pytest
from genecompass.inference.response.effects import read_effects
from genecompass.inference.response.simulation import SimulationOptions, simulate_doses, simulate_genes
from genecompass.tokenization.errors import InputError

SMALL = SimulationOptions(genes=80, regulators=20, pairs=30, cells=40, control_cells=200)


def test_effects_follow_the_truth():
    found = simulate_genes(SMALL)
    effects = read_effects(found.adata, "condition", control="control")
    truth = np.stack([found.truth[name] for name in effects.conditions.names])
    correlation = [np.corrcoef(t, d)[0, 1] for t, d in zip(truth, effects.delta, strict=True)]
    assert np.median(correlation) > 0.8
    assert found.planted
    assert all("+" in pair for pair in found.planted)


@pytest.mark.parametrize("rho", [0.0, 0.7, 1.0])
def test_the_table_tells_as_much_as_it_should(rho):
    found = simulate_genes(replace(SMALL, regulators=60, pairs=0, rho=rho, width=3))
    E = found.table.table[:, :3]
    D = np.stack([found.truth[name] for name in found.table.genes])
    told = E @ np.linalg.lstsq(E, D, rcond=None)[0]
    assert np.corrcoef(told.ravel(), D.ravel())[0, 1] == pytest.approx(rho, abs=0.25 if rho == 0 else 0.1)


def test_no_effect_is_no_effect():
    found = simulate_genes(replace(SMALL, effect=0.0))
    effects = read_effects(found.adata, "condition", control="control")
    z = effects.delta / np.maximum(effects.standard_error, 1e-9)
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1.0, abs=0.1)


def test_dose_effects_grow():
    found = simulate_doses(replace(SMALL, pairs=0), drugs=2)
    adata = found.adata
    up = np.argsort(-found.truth["D0"])[:5]
    levels = [
        adata.X[((adata.obs["drug"] == "D0") & (adata.obs["dose"] == d)).to_numpy()][:, up].mean() for d in (0.01, 10)
    ]
    assert levels[1] > 2 * levels[0]
    assert set(found.ec50) == {"D0", "D1"}


def test_same_seed_same_bytes():
    one, two, other = (simulate_genes(replace(SMALL, seed=seed)).adata.X for seed in (1, 1, 2))
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != other.tobytes()


def test_options_that_make_no_sense():
    with pytest.raises(InputError, match="do not make"):
        SimulationOptions(regulators=3, pairs=9)
    with pytest.raises(InputError, match="rho"):
        SimulationOptions(rho=2.0)
