import json

import pytest
from genecompass.eval.tasks import pretraining as task
from genecompass.model_cards.benchmarks import read_scores
from genecompass.tokenization.errors import InputError


def result(label, seed, model, yardstick, share=None):
    setting = {"masking.task": label} | ({} if share is None else {"data.share": share})
    scores = {"all": {"cross_entropy": model, "top1": 0.1, "top10": 0.2, "slots": 5}}
    other = {"all": {"cross_entropy": yardstick, "top1": 0.1, "top10": 0.2, "slots": 5}}
    values = {"all": {"mse": model / 10, "pearson": 0.5, "slots": 5}}
    return {
        "label": task.GridRun(setting, seed).label,
        "setting": setting,
        "seed": seed,
        "evaluation": {
            "model": {"id": scores, "value": values},
            "yardsticks": {"id": {"overall frequency": other}, "value": {"gene's own mean": {"all": {"mse": 0.5}}}},
        },
        "history": [{"step": step, "id_loss": model + 1 / step, "value_loss": 1 / step} for step in (1, 10, 20)],
    }


def test_grids_are_yaml():
    grid = task.parse_grid(["data.share=[0.1, 1.0]", "masking.task=[published, hidden_rank]"])
    runs = task.plan(grid, [0, 1])
    assert len(runs) == 8
    assert [run.seed for run in runs] == [0] * 4 + [1] * 4
    assert len({run.folder for run in runs}) == 8
    assert runs[0].overrides() == ["data.share=0.1", "masking.task=published", "seed=0"]
    assert task.plan({"model.use_priors": [[], None]}, [0])[0].overrides()[0] == "model.use_priors=[]"
    assert task.plan({"model.use_priors": [[], None]}, [0])[1].overrides()[0] == "model.use_priors=null"


@pytest.mark.parametrize("wrong", ["data.share", "data.share=0.5", "data.share=[", "data.share=[]"])
def test_grids_that_cannot_be_read(wrong):
    with pytest.raises(InputError, match="key="):
        task.parse_grid([wrong])


def test_no_seed_no_figure():
    with pytest.raises(InputError, match="no seed"):
        task.plan({}, [])


def test_summary_has_spread_and_says_what_was_beaten():
    rows = task.summarise([result("published", 0, 4.0, 5.0), result("published", 1, 6.0, 5.0)])
    model = next(r for r in rows if r["predictor"] == "model" and r["figure"] == "id cross_entropy")
    assert (model["mean"], model["seeds"]) == (5.0, 2)
    assert model["sd"] == pytest.approx(2**0.5)
    yardstick = next(r for r in rows if r["predictor"] == "overall frequency")
    assert yardstick["beaten_in"] == 1
    assert "beaten in 1 of 2" in task.format_summary(rows)


def test_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    runs = [result("published", seed, 4.0 - share, 5.0, share) for seed in (0, 1) for share in (0.1, 1.0)]
    written = task.draw({"runs": runs}, tmp_path)
    assert {path.name for path in written} == {
        f"{name}.{ending}" for name in ("training_curves", "scaling") for ending in ("png", "svg")
    }
    assert all(path.stat().st_size > 5000 for path in written)


def test_a_bad_key_is_found_before_the_first_run(tmp_path):
    with pytest.raises(InputError, match="did you mean"):
        task.run_grid("tiny", tmp_path / "out", overrides=["maskin.rate=0.1"], seeds=[0])
    assert not (tmp_path / "out").exists()


def test_a_finished_run_is_not_repeated(tmp_path, monkeypatch):
    calls = []

    def pretend(config, **_):
        calls.append(config.seed)
        found = result("published", config.seed, 4.0, 5.0)
        record = {"steps": 3, "parameters": 9, "vocab_size": 5} | found
        folder = tmp_path / "out" / f"task-published_seed-{config.seed}"
        folder.mkdir(parents=True)
        (folder / "pretraining.json").write_text(json.dumps(record))

    monkeypatch.setattr(task, "pretrain", pretend)
    grid = {"masking.task": ["published"]}
    task.run_grid("tiny", tmp_path / "out", grid=grid, seeds=[0])
    content = task.run_grid("tiny", tmp_path / "out", grid=grid, seeds=[0, 1])
    assert calls == [0, 1]
    assert [run["seed"] for run in content["runs"]] == [0, 1]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["summary"]
    assert (tmp_path / "out" / "results.tsv").exists()
    scores = read_scores([tmp_path / "out" / "results.json"])
    assert {score.seeds for score in scores} == {2}
    assert {score.method for score in scores if score.ours} == {"this kind of model"}
    assert any(not score.ours for score in scores)
