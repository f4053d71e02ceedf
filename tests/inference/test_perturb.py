"""Perturbation: what is done to counts, that the model's answer does not depend on how it is asked, and the noise."""

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.inference.perturbation.cells import columns_of_genes, take_cells
from genecompass.inference.perturbation.edits import Edit
from genecompass.inference.perturbation.perturb import perturb
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.processing_genecompass import GeneCompassProcessor
from genecompass.tokenization.tokenize import tokenize_cells
from scipy import sparse, stats

GENES = 40
SHARP = 30.0


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    human = pd.DataFrame(
        {
            "gene_id": [f"ENSG{i:011d}" for i in range(GENES)],
            "symbol": [f"GENE{i}" for i in range(GENES)],
            "species": "human",
            "median": rng.uniform(1, 4, GENES).round(2),
        }
    )
    mouse = human.assign(
        gene_id=[f"ENSMUSG{i:011d}" for i in range(GENES)],
        symbol=[f"Gene{i}" for i in range(GENES)],
        species="mouse",
        homolog_gene_id=human["gene_id"],
    )
    return GeneTable.from_genes(pd.concat([human, mouse.iloc[: GENES - 5]], ignore_index=True))


@pytest.fixture(scope="module")
def processor(table):
    return GeneCompassProcessor.from_gene_table(table)


def make_cells(n=12, seed=0, prefix="GENE", rate=1.2):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(2.0, rate, GENES), (n, GENES))
    counts[:, 0] += 1
    obs = pd.DataFrame({"kind": np.where(np.arange(n) % 2, "odd", "even")}, index=[f"cell{i}" for i in range(n)])
    var = pd.DataFrame(index=[f"{prefix}{i}" for i in range(GENES)])
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


@pytest.fixture(scope="module")
def cells():
    return make_cells()


def make_model(table, seed=0, **options):
    torch.manual_seed(seed)
    config = GeneCompassConfig.tiny(
        vocab_size=table.vocab_size,
        initializer_range=0.3,
        max_position_embeddings=options.pop("max_length", 64),
        **options,
    )
    return GeneCompassForMaskedGeneModeling(config).eval()


@pytest.fixture(scope="module")
def model(table):
    return make_model(table)


def run(adata, model, processor, genes, *args, **options):
    options = {"species": "human", "progress": False, "n_null": 5, **options}
    return perturb(adata, model, genes, *args, processor=processor, **options)


def test_a_symbol_shared_with_a_gene_the_model_does_not_know_means_the_known_one(table):
    cells = make_cells(6, rate=0.9)
    other = cells[:, [0]].copy()
    both = anndata.concat([other, cells], axis="var", merge="same")
    both.var["gene_id"] = ["ENSG99999999999", *table.frame.set_index("symbol").loc[cells.var_names, "gene_id"]]
    taken = take_cells(both, table, species="human")
    assert taken.match.cell_token[0] < 0
    assert columns_of_genes([str(cells.var_names[0])], taken) == [1]


def test_deleting_a_gene_is_tokenising_the_edited_counts(cells, table):
    taken = take_cells(cells, table, species="human", max_length=20)
    editor = taken.editor(Edit("delete"))
    for column in (0, 7, 23):
        edited = cells.copy()
        dense = edited.X.toarray()
        dense[:, column] = 0
        edited.X = sparse.csr_matrix(dense)
        expected = tokenize_cells(edited, table, species="human", max_length=20)
        for index in range(len(taken)):
            copies = editor.copies(*taken.cell(index), [(column,)])
            ids, values = copies.rows(0) if len(copies) else editor.original(*taken.cell(index))
            assert np.array_equal(ids, expected[index]["input_ids"])
            assert np.array_equal(values, expected[index]["values"])


@pytest.mark.parametrize(
    "edit",
    [
        Edit("knockdown", dose=0.5),
        Edit("overexpress", dose=4),
        Edit("overexpress", level="max", absent="insert"),
        Edit("overexpress", level="median"),
        Edit("set", dose=9, absent="insert"),
        Edit("set", dose=0),
    ],
    ids=lambda edit: f"{edit.label} {edit.absent}",
)
def test_every_kind_is_tokenising_the_edited_counts(cells, table, edit):
    taken = take_cells(cells, table, species="human", max_length=64)
    editor = taken.editor(edit)
    counts = cells.X.toarray().astype(float)
    column = 11
    mine = counts[:, column]
    level = {"max": np.max, "median": np.median}.get(edit.level or "max")(mine[mine > 0])
    for index in range(len(taken)):
        before = mine[index]
        after = {"knockdown": before * (edit.dose or 0), "set": edit.dose}.get(edit.kind)
        if edit.kind == "overexpress":
            after = before * edit.dose if edit.dose else max(before, level)
        if edit.absent == "skip" and before == 0:
            after = before
        row = counts[index].copy()
        row[column] = after
        expected = tokenize_cells(
            anndata.AnnData(sparse.csr_matrix(np.vstack([row, row])), var=cells.var), table, species="human",
            max_length=64, allow_fractional=True,
        )[0]  # fmt: skip
        copies = editor.copies(*taken.cell(index), [(column,)])
        assert len(copies) == int(after != before)
        if len(copies):
            ids, values = copies.rows(0)
            assert np.array_equal(ids, expected["input_ids"])
            assert np.allclose(values, expected["values"])


def test_what_the_model_does_not_see_is_not_run(cells, table):
    taken = take_cells(cells, table, species="human", max_length=10)
    editor = taken.editor(Edit("delete"))
    columns, counts = taken.cell(0)
    seen = set(editor.original(columns, counts)[0].tolist())
    copies = editor.copies(columns, counts, [(int(c),) for c in columns])
    changed = {int(taken.match.cell_token[columns[i]]) for i in copies.perturbation}
    assert changed == seen


def test_effects_do_not_depend_on_batches_or_order(cells, model, processor):
    options = {"targets": ["GENE3", "GENE5"], "readout": "ids"}
    one = run(cells, model, processor, ["GENE1", "GENE2"], **options)
    small = run(cells, model, processor, ["GENE1", "GENE2"], max_tokens=80, **options)
    turned = run(cells[::-1].copy(), model, processor, ["GENE2", "GENE1"], **options)
    for effect, values in one.cell_effects.items():
        np.testing.assert_allclose(small.cell_effects[effect], values, rtol=2e-3, atol=1e-7)
        other = turned.cell_effects[effect].loc[values.index, values.columns]
        np.testing.assert_allclose(other, values, rtol=2e-3, atol=1e-7)
    key = ["perturbation", "target", "readout"]
    for other in (small, turned):
        both = one.genes.merge(other.genes, on=key)
        assert len(both) == len(one.genes)
        np.testing.assert_allclose(both["mean_x"], both["mean_y"], rtol=2e-3, atol=1e-5)
    summary = one.summary.merge(turned.summary, on=["perturbation", "effect", "group"])
    assert np.allclose(summary["p_x"], summary["p_y"], equal_nan=True)


def test_cell_effect_is_the_distance_of_embeddings(cells, model, table, processor):
    result = run(cells, model, processor, "GENE0", pooling="species", ranks="anew")
    edited = cells.copy()
    edited.X = sparse.csr_matrix(np.where(np.arange(GENES) == 0, 0, cells.X.toarray()))

    def embed(adata):
        tokens = tokenize_cells(adata, table, species="human", max_length=64)
        states = []
        for i in range(len(tokens)):
            ids = torch.as_tensor(tokens[i]["input_ids"].astype(np.int64))[None]
            values = torch.as_tensor(tokens[i]["values"])[None]
            states.append(model.genecompass(ids, values).last_hidden_state[0, 0])
        return torch.stack(states)

    with torch.no_grad():
        before, after = embed(cells), embed(edited)
    expected = 1 - torch.cosine_similarity(before.double(), after.double()).numpy()
    np.testing.assert_allclose(result.cell_effects["cell_cosine"]["GENE0"], expected, rtol=1e-3, atol=1e-9)
    distance = (before - after).norm(dim=-1).numpy()
    np.testing.assert_allclose(result.cell_effects["cell_euclidean"]["GENE0"], distance, rtol=1e-3)


@pytest.mark.parametrize("ranks", ["kept", "anew"])
def test_the_perturbed_genes_own_slot_is_left_out_and_ranks_are_kept_or_not(cells, model, table, processor, ranks):
    result = run(cells, model, processor, "GENE0", ranks=ranks, embeddings=True)
    tokens = tokenize_cells(cells, table, species="human", max_length=64)
    own = int(take_cells(cells, table, species="human").match.cell_token[0])
    for index, name in enumerate(cells.obs_names):
        ids = np.asarray(tokens[index]["input_ids"], dtype=np.int64)
        values = np.asarray(tokens[index]["values"])
        others = ids != own
        ranked = np.flatnonzero(others) if ranks == "kept" else np.arange(others.sum())
        with torch.no_grad():
            whole = model.genecompass(torch.as_tensor(ids)[None], torch.as_tensor(values)[None]).last_hidden_state
            less = model.genecompass(
                torch.as_tensor(ids[others])[None], torch.as_tensor(values[others])[None],
                position_ids=torch.as_tensor(ranked)[None],
            ).last_hidden_state  # fmt: skip
        before, after = whole[0, 1:][torch.as_tensor(others)].mean(0), less[0, 1:].mean(0)
        np.testing.assert_allclose(result.embeddings[index, 1], after, rtol=1e-4, atol=1e-5)
        distance = float((before - after).norm())
        np.testing.assert_allclose(result.cell_effects["cell_euclidean"].loc[name, "GENE0"], distance, rtol=1e-3)


def test_both_ways_of_ranking_stand_side_by_side(cells, model, processor):
    both = run(cells, model, processor, ["GENE1", "GENE2"], ranks="both", groupby="kind").summary
    anew = run(cells, model, processor, ["GENE1", "GENE2"], ranks="anew", groupby="kind").summary
    key = ["perturbation", "group", "effect"]
    merged = both.merge(anew, on=key)
    np.testing.assert_allclose(merged["mean_ranked_anew"], merged["mean_y"], rtol=1e-3, atol=1e-7)
    assert not np.allclose(merged["mean_x"], merged["mean_y"])


def planted_model(table, a, b, cells):
    """One layer in which gene B's slot attends to gene A's, and every other slot to the species slot, worth nothing."""
    config = GeneCompassConfig(
        vocab_size=table.vocab_size, hidden_size=128, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=64, hidden_dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GeneCompassForMaskedGeneModeling(config).eval()
    base, layer = model.genecompass, model.genecompass.layers[0]
    with torch.no_grad():
        base.embeddings.position_embeddings.weight.zero_()
        base.embeddings.fusion_value.weight.zero_()
        for linear in (layer.intermediate, layer.output):
            linear.weight.zero_()
            linear.bias.zero_()
        base.embeddings.word_embeddings.weight.normal_()
        tokens = torch.arange(2, 2 + GENES)
        rank = torch.zeros(1, GENES, dtype=torch.long)
        species = torch.zeros(1, 1, dtype=torch.long)
        slots = base.embeddings(tokens[None], torch.ones(1, GENES), species, rank)[0]
        states = torch.cat([base.species_embeddings.weight[:1] + 1.0, slots])
        base.species_embeddings.weight[0] += 1.0
        scale = 128**0.5
        query, key, value = (torch.zeros(1 + GENES, 128) for _ in range(3))
        key[0, 0], key[1 + a, 1] = 1, 1
        query[:, 0] = SHARP * scale
        query[1 + b, 1] = 3 * SHARP * scale
        value[1 + a] = torch.randn(128)
        solve = torch.linalg.pinv(states.double())
        attention = layer.attention
        for linear, wanted in ((attention.query, query), (attention.key, key), (attention.value, value)):
            linear.weight.copy_((solve @ wanted.double()).T.float())
            linear.bias.zero_()
        attention.output.weight.copy_(torch.eye(128))
        attention.output.bias.zero_()
    return model


def test_a_planted_effect_is_found_and_nothing_else(table, processor):
    cells = make_cells(10, seed=3)
    a, b = 4, 9
    cells.X = sparse.csr_matrix(np.where(np.isin(np.arange(GENES), (a, b)), 5, cells.X.toarray()))
    model = planted_model(table, a, b, cells)
    result = run(cells, model, processor, "expressed", targets="expressed", readout="values", n_null=30)
    for readout in ("gene_cosine", "value_change"):
        genes = result.genes[result.genes["readout"] == readout]
        found = genes[genes["q"] < 0.05]
        assert found[["perturbation", "target"]].to_numpy().tolist() == [[f"GENE{a}", f"GENE{b}"]], readout
        top = genes.loc[genes["mean"].abs().idxmax()]
        assert (top["perturbation"], top["target"]) == (f"GENE{a}", f"GENE{b}")
    shift = result.summary.query("effect == 'gene_cosine' and group == 'all'")
    assert shift.loc[shift["mean"].idxmax(), "perturbation"] == f"GENE{a}"


def test_p_is_uniform_under_a_model_that_knows_nothing(table, processor):
    cells = make_cells(16, seed=5, rate=1.0)
    values = []
    for seed in range(4):
        shuffled = make_model(table, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in shuffled.parameters():
                order = torch.randperm(parameter.numel(), generator=generator)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
        result = run(cells, shuffled, processor, "expressed", n_null=25, seed=seed)
        values.append(result.summary.query("effect == 'gene_cosine'")["p"].to_numpy())
    p = np.concatenate(values)
    p = p[np.isfinite(p)]
    # p has steps of 1/26; spread evenly within the step for the comparison with a continuous uniform
    p = p - np.random.default_rng(0).random(len(p)) / 26
    assert len(p) > 100
    assert stats.kstest(p, "uniform").pvalue > 0.01


def calibration_cells(seed, genes=240, n=40):
    """Cells of unlike depth in which genes span detection rates of 5 to 100 %, their gene table, and detection."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "gene_id": [f"ENSG{i:011d}" for i in range(genes)],
            "symbol": [f"GENE{i}" for i in range(genes)],
            "species": "human",
            "median": rng.uniform(1, 3, genes).round(2),
        }
    )
    level = np.exp(rng.normal(-0.5, 1.3, genes))
    counts = rng.poisson(level * rng.gamma(4, 0.25, (n, 1)) * rng.gamma(3, 1 / 3, (n, genes)))
    counts[:, 0] += 1
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n)])
    adata = anndata.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=frame[[]].set_axis(frame["symbol"])
    )
    return adata, GeneTable.from_genes(frame), (counts > 0).mean(axis=0)


@pytest.fixture(scope="module")
def random_genes():
    """Summaries of deletions of 50 random genes at a time, highly and lowly expressed ones apart."""
    tables = []
    for seed in range(2):
        adata, table, detection = calibration_cells(seed)
        model, processor = make_model(table, seed=seed, max_length=256), GeneCompassProcessor.from_gene_table(table)
        order = np.argsort(-detection)
        strata = {"high": order[:70], "low": order[(detection[order] > 0.05) & (detection[order] < 0.5)]}
        for name, genes in strata.items():
            asked = np.random.default_rng(seed).choice(genes, 50, replace=False)
            result = run(
                adata, model, processor, [f"GENE{i}" for i in asked], n_null=40, seed=seed,
                goal=np.arange(40) % 2 == 1,
            )  # fmt: skip
            tables.append(result.summary.assign(stratum=name))
    return pd.concat(tables)


@pytest.mark.parametrize("effect", ["cell_cosine", "gene_cosine", "goal_progress"])
@pytest.mark.parametrize("stratum", ["high", "low"])
def test_p_of_50_random_genes_is_uniform(random_genes, effect, stratum):
    table = random_genes.query("effect == @effect and stratum == @stratum and group == 'all'")
    assert len(table) == 100
    assert (table["n_null"] >= 20).all()
    assert (table["smallest_p"] <= 0.1).all()
    # spread evenly within the step of p for the comparison with a continuous uniform
    p = table["p"] - np.random.default_rng(0).random(len(table)) * np.minimum(table["p"], table["smallest_p"])
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert (table["p"] <= 0.1).mean() < 0.2


def test_a_group_of_too_few_cells_has_no_p_and_groups_count_as_tests(cells, model, processor):
    adata = cells.copy()
    adata.obs["kind"] = ["rare"] * 2 + ["common"] * 10
    genes = ["GENE0", "GENE1", "GENE2"]
    summary = run(adata, model, processor, genes, groupby="kind", min_group_cells=6, n_null=20).summary
    assert summary.query("group == 'rare'")["p"].isna().all()
    assert summary.query("group == 'rare'")["mean"].notna().any()
    part = summary.query("effect == 'cell_cosine'")
    tested = part["p"].notna()
    assert set(part.loc[tested, "group"]) == {"all", "common"}
    np.testing.assert_allclose(part.loc[tested, "q"], stats.false_discovery_control(part.loc[tested, "p"]))


def test_too_few_random_genes_are_said_in_a_warning(cells, model, processor):
    with pytest.warns(UserWarning, match=r"1 of 1 perturbations cannot reach p <= 0.05: as few as 5 random genes"):
        result = run(cells, model, processor, ["GENE1"], n_null=5)
    assert result.summary["smallest_p"].iloc[0] == pytest.approx(1 / 6)


def test_the_figure_stands_by_evidence_and_a_distance_is_never_below_0(random_genes, tmp_path, monkeypatch):
    from genecompass.inference.perturbation import figures

    plotted = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: plotted.append(figure) or [])
    table = random_genes.query("stratum == 'low'").head(400).copy()
    table["low"] -= 1.0
    figures.plot_effects(table, tmp_path / "screen", top=12)
    figures.plot_effects(table, tmp_path / "goal", effect="goal_progress", top=12)
    distance, goal = (figure.axes[0] for figure in plotted)
    names = [label.get_text() for label in distance.get_yticklabels()]
    first = table.query("effect == 'cell_cosine' and group == 'all'").sort_values("p")
    best = first[first["p"] == first["p"].min()]
    assert len(names) == 12
    assert names[-1] in set(best["perturbation"])
    assert distance.get_xlim()[0] == 0
    starts = [segment[0, 0] for segment in distance.collections[0].get_segments()]
    assert min(starts) >= 0
    assert min(patch.get_x() for patch in distance.patches) >= 0
    assert goal.get_xlim()[0] < 0
    with pytest.raises(InputError, match="nothing to draw"):
        figures.plot_effects(table, tmp_path / "none", group="nowhere")


def test_null_genes_are_like_the_gene_and_not_among_those_asked(cells, table):
    from genecompass.inference.perturbation.matching import matched_genes

    taken = take_cells(make_cells(60, rate=0.6), table, species="human")
    profile = taken.profile()
    asked = [int(profile.columns[np.argsort(profile.detection)[k]]) for k in (2, 15, 30)]
    for column in asked:
        drawn = matched_genes(profile, column, n=6, exclude=asked, seed=1)
        assert len(drawn) == 6
        assert not set(drawn) & set(asked)
        own = profile.detection[profile.columns == column][0]
        apart = np.abs(profile.detection[np.isin(profile.columns, drawn)] - own).mean()
        assert apart < np.abs(profile.detection - own).mean()


def test_combinations_groups_and_a_goal(cells, model, processor):
    result = run(
        cells, model, processor, ["GENE1", "GENE2", "GENE3"], "overexpress", combinations=2, absent="insert",
        groupby="kind", goal=cells.obs["kind"].to_numpy() == "odd",
    )  # fmt: skip
    assert set(result.summary["perturbation"]) == {"GENE1+GENE2", "GENE1+GENE3", "GENE2+GENE3"}
    assert set(result.summary["group"]) == {"all", "even", "odd"}
    assert {"goal_cosine", "goal_progress"} <= set(result.summary["effect"])
    assert (result.summary.query("group == 'all'")["n_cells"] > 0).all()


def test_mouse_cells_by_symbol_and_by_homolog(table, model, processor):
    mouse = make_cells(prefix="Gene")[:, : GENES - 5].copy()
    by_own = run(mouse, model, processor, ["Gene2"], species="mouse")
    by_homolog = run(mouse, model, processor, ["GENE2"], species="mouse")
    pd.testing.assert_frame_equal(by_own.summary, by_homolog.summary)
    as_human = run(make_cells()[:, : GENES - 5].copy(), model, processor, ["GENE2"])
    assert not np.allclose(as_human.summary["mean"], by_own.summary["mean"])


def test_goes_on_from_where_it_was_cut_off(cells, model, processor, tmp_path, monkeypatch):
    from genecompass.inference.perturbation import screen

    monkeypatch.setattr(screen, "SECONDS_BETWEEN_SAVES", -1.0)
    whole = run(cells, model, processor, ["GENE1", "GENE2"], targets=["GENE5"])
    original = screen.Screen._run_cell

    def cut_off(self, index, result):
        if index == 5:
            raise KeyboardInterrupt
        original(self, index, result)

    monkeypatch.setattr(screen.Screen, "_run_cell", cut_off)
    store = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        run(cells, model, processor, ["GENE1", "GENE2"], targets=["GENE5"], store=store)
    seen = []

    def count(self, index, result):
        seen.append(index)
        original(self, index, result)

    monkeypatch.setattr(screen.Screen, "_run_cell", count)
    resumed = run(cells, model, processor, ["GENE1", "GENE2"], targets=["GENE5"], store=store)
    assert seen == list(range(5, 12))
    pd.testing.assert_frame_equal(resumed.summary, whole.summary)
    pd.testing.assert_frame_equal(resumed.genes, whole.genes)
    with pytest.raises(InputError, match="another run"):
        run(cells, model, processor, ["GENE1"], targets=["GENE5"], store=store)


def test_hidden_targets_are_inferred_from_the_others(cells, model, processor):
    seen = run(cells, model, processor, ["GENE1"], targets=["GENE5"], readout="ids")
    hidden = run(cells, model, processor, ["GENE1"], targets=["GENE5"], readout="ids", hide_targets=True)
    assert set(hidden.genes["readout"]) == {"gene_cosine", "value_change", "id_change"}
    assert not np.allclose(seen.genes["mean"], hidden.genes["mean"])


def test_results_are_kept(cells, model, processor, tmp_path):
    adata = cells.copy()
    result = run(adata, model, processor, ["GENE1"], targets=["GENE5"])
    result.write(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"summary.csv", "genes.parquet", "parameters.json"}
    result.store(adata)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert len(again.uns["genecompass_perturbation"]["summary"]) == len(result.summary)
    foreign = pd.read_csv(tmp_path / "out" / "geneformer.csv")
    assert foreign.loc[0, "Gene_name"] == "GENE1"
    assert foreign.loc[0, "Ensembl_ID"] == "ENSG00000000001"
    cosine = result.summary.query("effect == 'cell_cosine' and group == 'all'").iloc[0]
    assert foreign.loc[0, "Test_vs_null_FDR"] == pytest.approx(cosine["q"])
    with pytest.raises(InputError, match="embeddings=True"):
        result.to_anndata()


def test_perturbed_cells_as_pertpy_has_them(cells, model, processor, tmp_path):
    result = run(cells, model, processor, ["GENE1", "GENE2"], embeddings=True)
    result.write(tmp_path)
    adata = anndata.read_h5ad(tmp_path / "perturbed.h5ad")
    assert list(adata.obs["perturbation"].cat.categories) == ["control", "GENE1", "GENE2"]
    took_part = result.cell_effects["cell_cosine"].notna().sum()
    assert adata.obs["perturbation"].value_counts().to_dict() == {"control": len(cells), **took_part.to_dict()}
    assert np.isfinite(adata.obsm["X_genecompass"]).all()
    assert set(adata.uns["genecompass_perturbation"]["summary"]["perturbation"]) == {"GENE1", "GENE2"}
    assert result.parameters["milliseconds_per_copy"] > 0


@pytest.mark.parametrize(
    ("genes", "options", "message"),
    [
        (["NOSUCH"], {}, "unknown"),
        (["GENE39"], {"columns": GENES - 1}, "not measured"),
        (["GENE7"], {"silent": 7}, "not expressed"),
        ([], {}, "no gene"),
        ([["GENE1", "GENE1"]], {}, "same gene twice"),
        (["GENE1"], {"kind": "knockdown"}, "needs a dose"),
        (["GENE1"], {"kind": "knockdown", "dose": 1.5}, "needs a dose"),
        (["GENE1"], {"kind": "delete", "dose": 2}, "contradicts"),
        (["GENE1"], {"kind": "overexpress", "dose": 2, "level": "max"}, "not both"),
        (["GENE1"], {"kind": "overexpress", "dose": 0.5}, "above 1"),
        (["GENE1"], {"kind": "overexpress", "dose": 2, "absent": "insert"}, "cannot insert"),
        (["GENE1"], {"kind": "explode"}, "unknown kind"),
        (["GENE1"], {"max_cells": 99}, "99 cells asked for"),
        (["GENE1"], {"cells": []}, "no cell chosen"),
        (["GENE1"], {"goal": []}, "no cell chosen"),
        (["GENE1"], {"goal": list(range(12))}, "same mean embedding"),
        (["GENE1"], {"groupby": "tissue"}, "no column"),
        (["GENE1"], {"readout": "ids"}, "need targets"),
        (["GENE1"], {"combinations": 2}, "at least 2"),
        ("tfs", {}, "no transcription factor"),
        ("tfs", {"transcription_factors": "missing.txt"}, "no such file"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(cells, model, processor, genes, options, message):
    adata = cells.copy()
    if "columns" in options:
        adata = adata[:, : options.pop("columns")].copy()
    if "silent" in options:
        adata.X = sparse.csr_matrix(np.where(np.arange(GENES) == options.pop("silent"), 0, adata.X.toarray()))
    with pytest.raises(InputError, match=message) as error:
        run(adata, model, processor, genes, **options)
    assert "\n" not in str(error.value)


def test_values_need_the_masked_gene_head(cells, model, processor):
    with pytest.raises(InputError, match="head"):
        run(cells, model.genecompass, processor, ["GENE1"], readout="values")
