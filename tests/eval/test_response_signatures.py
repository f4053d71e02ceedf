"""Compounds: structures, simple methods by hand, the network, the benchmark."""

import builtins

import numpy as np
import pandas as pd
import pytest
from genecompass.eval.baselines.response_signatures import signature_baselines
from genecompass.eval.tasks.response_genes import as_text
from genecompass.eval.tasks.response_signatures import NETWORK, benchmark_signatures
from genecompass.inference.response.compounds import (
    fingerprints,
    need_rdkit,
    read_structures,
    scaffolds,
    tanimoto,
)
from genecompass.inference.response.doses import DoseEffects
from genecompass.inference.response.fit import FitSettings
from genecompass.inference.response.signature_network import fit_signatures
from genecompass.tokenization.errors import InputError

QUICK = FitSettings(epochs=30, patience=30, batch_size=16, learning_rate=3e-3)


def structured(n=40, genes=30, width=24, seed=0):
    """Signatures that are linear in the bits of the structures."""
    generator = np.random.default_rng(seed)
    bits = (generator.random((n, width)) < 0.3).astype(float)
    drugs = tuple(f"D{i:02d}" for i in range(n))
    delta = (bits - 0.3) @ generator.normal(size=(width, genes)) + 0.1 * generator.normal(size=(n, genes))
    names = tuple(f"g{i}" for i in range(genes))
    return DoseEffects(drugs, ("",) * n, np.ones(n), names, delta, np.ones(n, dtype=int)), drugs, bits


def test_structures_are_read_once_a_drug():
    obs = pd.DataFrame({"drug": ["a", "a", "b"], "smiles": ["CC", "CC", "-666"]})
    assert read_structures(obs, "drug", "smiles") == {"a": "CC"}
    with pytest.raises(InputError, match="two structures"):
        read_structures(obs.assign(smiles=["CC", "CO", "C"]), "drug", "smiles")
    with pytest.raises(InputError, match="no obs column 'x'"):
        read_structures(obs, "drug", "x")
    with pytest.raises(InputError, match="no drug has a structure"):
        read_structures(obs.assign(smiles=""), "drug", "smiles")


def test_without_rdkit_one_line_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **options):
        if name.partition(".")[0] == "rdkit":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"genecompass\[compounds\]"):
        need_rdkit()


def test_with_rdkit():
    pytest.importorskip("rdkit")
    names, bits = fingerprints({"toluene": "Cc1ccccc1", "benzene": "c1ccccc1", "ethanol": "CCO"})
    assert names == ["benzene", "ethanol", "toluene"]
    like = tanimoto(bits, bits)
    assert like[0, 2] > like[0, 1]
    found = scaffolds({"toluene": "Cc1ccccc1", "benzene": "c1ccccc1", "ethanol": "CCO"})
    assert found["toluene"] == found["benzene"] != found["ethanol"]
    with pytest.raises(InputError, match="'broken'"):
        fingerprints({"broken": "C1CC"})


def test_simple_methods_by_hand():
    known = DoseEffects(
        ("a", "b", "b"), ("",) * 3, np.array([1.0, 1, 10]), ("x",), np.array([[1.0], [3], [9]]), np.ones(3)
    )
    wanted = DoseEffects(("c",), ("",), np.array([8.0]), ("x",), np.zeros((1, 1)), np.ones(1))
    bits = {"a": np.array([1.0, 0]), "b": np.array([0.0, 1]), "c": np.array([1.0, 0])}
    found = {name: float(values[0, 0]) for name, values in signature_baselines(known, wanted, bits).items()}
    assert found["mean of dose"] == found["nearest structure"] == 9
    assert found["train mean"] == pytest.approx(13 / 3)


def test_structures_that_matter_beat_their_twins():
    effects, drugs, bits = structured(80)
    benchmark = benchmark_signatures(effects, drugs, bits, n_folds=4, seeds=(0,), settings=QUICK)
    pearson = benchmark.conditions.groupby("method")["pearson"].mean()
    assert "up_100" in as_text(benchmark, ("spearman", "up_100"))
    assert pearson[NETWORK] > pearson[f"{NETWORK}, shuffled structures"] + 0.1
    assert pearson["kernel ridge, structure x dose"] > pearson["train mean"] + 0.1


def test_network_is_seeded_and_starts_at_the_mean():
    effects, drugs, bits = structured(12)
    of_drug = dict(zip(drugs, bits, strict=True))
    one, two = (
        fit_signatures(effects, of_drug, settings=QUICK, seed=1).predict(bits, np.ones(12), [""] * 12) for _ in "ab"
    )
    np.testing.assert_array_equal(one, two)
    none = fit_signatures(effects, of_drug, settings=FitSettings(epochs=1, learning_rate=1e-9))
    np.testing.assert_allclose(
        none.predict(bits, np.ones(12), [""] * 12), np.tile(effects.delta.mean(0), (12, 1)), atol=1e-3
    )
    table = fit_signatures(effects, of_drug, gene_table=np.random.default_rng(0).normal(size=(30, 5)), settings=QUICK)
    assert np.isfinite(table.predict(bits, np.ones(12), ["new"] * 12)).all()
    with pytest.raises(InputError, match="no fingerprint"):
        fit_signatures(effects, {})


def test_scaffolds_stay_together():
    effects, drugs, bits = structured(12)
    groups = {drug: f"s{i // 3}" for i, drug in enumerate(drugs)}
    found = benchmark_signatures(effects, drugs, bits, groups=groups, n_folds=2, seeds=(0,), network=False)
    assert set(found.conditions["group"]) == {"unseen scaffold"}
    with pytest.raises(InputError, match="cannot make"):
        benchmark_signatures(effects, drugs, bits, groups=groups, n_folds=5, seeds=(0,), network=False)
