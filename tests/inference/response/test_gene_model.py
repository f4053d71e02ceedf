"""The gene network, its files, and what a user is told."""

import json

import anndata
import numpy as np
import pytest
import torch
from genecompass.inference.response.additive import fit_additive
from genecompass.inference.response.features import GeneFeatures, shuffled
from genecompass.inference.response.fit import FitSettings, seeded
from genecompass.inference.response.gene_network import GeneNetwork, held_out_starts, start_from
from genecompass.inference.response.genes import GeneInputs, GeneOptions, fit_genes
from genecompass.inference.response.graphs import co_expression_graph, go_graph
from genecompass.inference.response.predict import ResponseModel, fit_response, graph_cells
from genecompass.inference.response.saved import NUMBERS
from genecompass.inference.response.simulation import SimulationOptions, simulate_genes
from genecompass.tokenization.errors import InputError

from genecompass.cli import main

QUICK = GeneOptions(hidden=8, fit=FitSettings(epochs=4))
SMALL = SimulationOptions(genes=50, regulators=15, pairs=20, cells=12, control_cells=40)


@pytest.fixture(scope="module")
def simulation():
    return simulate_genes(SMALL)


@pytest.fixture(scope="module")
def response(simulation):
    return fit_response(
        simulation.adata, perturbation="condition", control="control", table=simulation.table, members=2, options=QUICK
    )


def planted(n=40, genes=30, width=3, seed=0):
    generator = np.random.default_rng(seed)
    names = tuple(f"P{i}" for i in range(n))
    table = generator.normal(size=(n, width))
    delta = table @ generator.normal(size=(width, genes)) + 0.1 * generator.normal(size=(n, genes))
    return names, table, delta


class TestNetwork:
    def test_it_starts_at_zero(self):
        with seeded(0):
            network = GeneNetwork(5, 4, hidden=3, perturbed_table=torch.ones(4, 2)).eval()
        X = torch.ones(2, 4)
        for part in network(X, X, torch.ones(2, 5), torch.ones(2, 5)):
            assert (part == 0).all()

    def test_a_cell_does_not_depend_on_its_batch(self, simulation, response):
        one = response.predict(["G0+G1"]).X
        many = response.predict(["G3", "G0+G1", "G4+G5"]).X
        np.testing.assert_allclose(many[1], one[0], atol=1e-6)

    def test_unseen_genes_get_their_meaning_from_the_table(self):
        names, table, delta = planted()
        known, options = np.arange(30), GeneOptions(hidden=16)
        wanted = [(name,) for name in names[30:]]
        error = {}
        features = GeneFeatures("planted", names, table)
        for key, one in {"planted": features, "shuffled": shuffled(features, seed=0), "learned": None}.items():
            inputs = GeneInputs(tuple(f"g{i}" for i in range(30)), names, one)
            member = fit_genes(
                delta[known], [(names[i],) for i in known], inputs, validation=np.array([0, 1, 2]), options=options
            )
            error[key] = np.sqrt(np.mean((member.predict(wanted) - delta[30:]) ** 2))
        base = np.sqrt(np.mean((delta[known].mean(0) - delta[30:]) ** 2))
        assert error["planted"] < 0.7 * base
        assert error["shuffled"] > 0.9 * base
        assert error["learned"] == pytest.approx(base, rel=0.02)

    def test_nothing_of_a_condition_is_in_its_own_start(self):
        names, _, delta = planted(12)
        genes = [(name,) for name in names]
        train, held = held_out_starts(delta, genes, names, validation=np.array([0, 1]))
        changed = delta.copy()
        changed[5] += 100.0
        again, _ = held_out_starts(changed, genes, names, validation=np.array([0, 1]))
        mine = train.rows == 5
        assert mine.sum() >= 1
        np.testing.assert_allclose(again.base[mine], train.base[mine], atol=20.0)
        assert not held.seen[held.has_new].any()

    def test_starts_know_what_is_new(self):
        delta, genes = np.array([[1.0], [3.0], [4.5]]), [("A",), ("B",), ("A", "B")]
        starts = start_from(fit_additive(delta, genes), [("A", "B"), ("A", "C")], ["A", "B", "C"])
        assert starts.new.tolist() == [[0, 0, 0], [0, 0, 1]]
        assert starts.products[0, 0] != 0
        assert starts.products[1, 0] == 0

    def test_global_seed_is_left_alone(self, simulation):
        before = torch.random.get_rng_state()
        fit_response(simulation.adata, perturbation="condition", control="control", members=1, options=QUICK)
        assert torch.equal(before, torch.random.get_rng_state())


class TestGraphs:
    def test_symmetric_normalisation_by_hand(self):
        graph = go_graph({"A": frozenset("xy"), "B": frozenset("xy"), "C": frozenset("z")}, ["A", "B", "C"])
        np.testing.assert_allclose(graph.dense(), [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])

    def test_a_hop_is_one_matrix_for_every_cell(self):
        X = np.random.default_rng(0).normal(size=(30, 6))
        X[:, 1] = X[:, 0]
        dense = co_expression_graph(X).dense()
        assert dense[0, 1] > 0.3
        assert (dense >= 0).all()
        assert np.count_nonzero(co_expression_graph(X, least=0.0, nearest=2).dense()) <= 18


class TestModel:
    def test_prediction_has_everything(self, simulation, response):
        found = response.predict(["G0+G1", "G49", "G2"])
        assert found.shape == (3, 50)
        assert found.obs["never_perturbed"].tolist() == ["", "G49", ""]
        assert found.obs["in_training"].tolist() == ["G0+G1" in response.conditions, False, True]
        assert (found.layers["std"] > 0).all()
        np.testing.assert_allclose(found.X - found.layers["delta"], np.tile(response.control_mean, (3, 1)), atol=1e-5)

    def test_saved_and_read_it_predicts_the_same(self, response, tmp_path):
        response.save(tmp_path / "model")
        again = ResponseModel.load(tmp_path / "model")
        wanted = ["G0", "G1+G2", "G40"]
        np.testing.assert_array_equal(again.predict(wanted).X, response.predict(wanted).X)
        np.testing.assert_array_equal(again.predict(wanted).layers["std"], response.predict(wanted).layers["std"])
        assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["response.json", "response.safetensors"]

    def test_same_seed_same_bytes(self, simulation, tmp_path):
        for i, seed in enumerate((1, 1, 2)):
            fit_response(
                simulation.adata, perturbation="condition", control="control", members=1, options=QUICK, seed=seed
            ).save(tmp_path / str(i))
        one, two, other = ((tmp_path / str(i) / NUMBERS).read_bytes() for i in range(3))
        assert one == two != other

    def test_damage_is_one_line(self, response, tmp_path):
        response.save(tmp_path / "model")
        with pytest.raises(InputError, match="no response model here"):
            ResponseModel.load(tmp_path)
        path = tmp_path / "model" / "response.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "format": "other"}))
        with pytest.raises(InputError, match="fit it anew"):
            ResponseModel.load(tmp_path / "model")
        path.write_text("{")
        with pytest.raises(InputError, match="damaged"):
            ResponseModel.load(tmp_path / "model")

    def test_what_is_asked_wrongly(self, simulation, response):
        with pytest.raises(InputError, match="did you mean"):
            response.predict(["G0+G1x"])
        with pytest.raises(InputError, match="no condition given"):
            response.predict([])
        with pytest.raises(InputError, match="needs the species"):
            fit_response(simulation.adata, perturbation="condition", control="control", model="somewhere")
        with pytest.raises(InputError, match="has 0 of"):
            fit_response(
                simulation.adata,
                perturbation="condition",
                control="control",
                table=GeneFeatures("other", ("X", "Y"), np.eye(2)),
            )
        with pytest.raises(InputError, match="loss"):
            GeneOptions(loss="other")

    def test_graphs_read_no_test_cells(self, simulation):
        from genecompass.inference.response.effects import read_effects

        effects = read_effects(simulation.adata, "condition", control="control")
        assert len(graph_cells(simulation.adata, effects, rows=[0, 1])) == 40 + 24

    def test_other_losses(self, simulation):
        for options in (GeneOptions(4, loss="published", fit=QUICK.fit), GeneOptions(4, residual=False, fit=QUICK.fit)):
            found = fit_response(
                simulation.adata, perturbation="condition", control="control", members=1, options=options
            )
            assert np.isfinite(found.predict(["G0"]).X).all()


def test_from_the_command_line(simulation, tmp_path, capsys):
    simulation.adata.write_h5ad(tmp_path / "cells.h5ad")

    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        return stopped.value.code, capsys.readouterr()

    fit = ("respond", "fit", tmp_path / "cells.h5ad", "--perturbation", "condition", "-o", tmp_path / "model")
    code, shown = run(*fit, "--control", "DMSO")
    assert code == 2
    assert "no row has 'DMSO'" in shown.err
    assert "--control" in shown.err or "control" in shown.err
    assert not (tmp_path / "model").exists()
    code, shown = run(*fit, "--control", "control", "--members", "1")
    assert code == 0
    assert "35 conditions" in shown.out
    code, shown = run("respond", "predict", tmp_path / "model", "-c", "G0+G40", "-o", tmp_path / "p.h5ad")
    assert code == 0
    assert "never perturbed in the data: G40" in shown.out
    assert anndata.read_h5ad(tmp_path / "p.h5ad").layers["std"].min() > 0
    code, shown = run("respond", "predict", tmp_path / "model", "-c", "nonsense", "-o", tmp_path / "q.h5ad")
    assert code == 2
    assert len(shown.err.strip().splitlines()) == 1


def test_a_checkpoint_in_memory_needs_its_processor():
    from genecompass.inference.response.checkpoint_tables import input_table
    from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel

    model = GeneCompassModel(GeneCompassConfig.tiny(vocab_size=12)).eval()
    with pytest.raises(InputError, match="needs its processor"):
        input_table(model, ["A"], species="human")
