"""Resuming with the settings that people use: the speed probe on, dropout on, logs and evaluations in between."""

import os
import shutil
import signal

import pytest
import torch
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import sole_writer
from genecompass.training.pretraining.checkpoints import checkpoints_in
from genecompass.training.pretraining.metering import peak_flops
from genecompass.training.pretraining.pretrain import pretrain
from safetensors.torch import load_file
from transformers import TrainerCallback

pytestmark = pytest.mark.usefixtures("one_thread")

DEFAULTS = ("logging.peak_tflops=null", "logging.every_steps=3", "evaluation.every_steps=5")
DROPOUT = "model.overrides={hidden_size: 16, hidden_dropout: 0.1}"


class Stop(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.step


class Count(TrainerCallback):
    def __init__(self):
        self.steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1


def run(toy, folder, *callbacks, resume=False):
    config = toy.make_config(folder, *DEFAULTS, DROPOUT)
    return pretrain(config, corpus=toy.make_cells(), table=toy.make_table(), callbacks=callbacks, resume=resume)


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(toy, folder)
    return folder


def assert_same(first, second):
    one, other = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_speed_probe_draws_no_random_number():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert peak_flops(torch.device("cpu")) > 1e8
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("step", [4, 8])
def test_stopped_and_resumed_is_exact_with_a_log_in_between(toy, tmp_path, whole, step):
    run(toy, tmp_path / "parts", Stop(step))
    result = run(toy, tmp_path / "parts", resume=True)
    assert result.steps == 12
    assert_same(whole, tmp_path / "parts")


def test_a_finished_run_is_not_trained_further(toy, tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / "model.safetensors").unlink()
    counted = Count()
    for _ in range(2):
        result = run(toy, folder, counted, resume=True)
        assert result.steps == 12
        assert result.evaluation["task"]
    assert counted.steps == 0
    assert_same(whole, folder)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "trainer_state.json", "stream_0.json"])
def test_a_damaged_checkpoint_is_told_and_stepped_over(toy, tmp_path, whole, file, caplog):
    folder = shutil.copytree(whole, tmp_path / "run")
    path = checkpoints_in(folder)[-1] / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with caplog.at_level("WARNING"):
        result = run(toy, folder, resume=True)
    assert f"checkpoint-12: {file} is damaged; going back to checkpoint-8" in caplog.text
    assert result.steps == 12
    assert_same(whole, folder)


def test_when_no_checkpoint_is_whole_nothing_is_made_up(toy, tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    for checkpoint in checkpoints_in(folder):
        (checkpoint / "optimizer.pt").unlink()
    with pytest.raises(InputError, match=r"optimizer\.pt is missing; no checkpoint of this run is whole"):
        run(toy, folder, resume=True)
    (folder / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json: damaged"):
        run(toy, folder, resume=True)


def test_two_runs_do_not_share_a_folder(toy, tmp_path, whole):
    folder = shutil.copytree(whole, tmp_path / "run")
    with sole_writer(folder), pytest.raises(InputError, match="another process is writing here"):
        run(toy, folder, resume=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_checkpoint_and_says_how_to_go_on(toy, tmp_path, whole, number):
    class Send(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(InputError, match=f"stopped by {number.name} after step 6 of 12; continue with --resume"):
        run(toy, tmp_path / "run", Send())
    assert signal.getsignal(number) is before
    assert checkpoints_in(tmp_path / "run")[-1].name == "checkpoint-6"
    assert run(toy, tmp_path / "run", resume=True).steps == 12
    assert_same(whole, tmp_path / "run")
