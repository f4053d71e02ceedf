"""Fixtures of the training tests."""

import importlib.util
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def toy():
    """The module that makes toy cells, tables and configurations; its ``__file__`` can be run as a program."""
    path = Path(__file__).with_name("toy_run.py")
    spec = importlib.util.spec_from_file_location("genecompass_toy_run", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def one_thread():
    """One thread, so that sums come out the same bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
