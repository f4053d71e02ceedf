"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import genecompass.inference.response as room
import pytest

MODULES = [f"genecompass.inference.response.{found.name}" for found in pkgutil.iter_modules(room.__path__)]
MODULES += [
    "genecompass.eval.metrics.response",
    "genecompass.eval.baselines.response",
    "genecompass.eval.tasks.response_genes",
    "genecompass.eval.baselines.response_doses",
    "genecompass.eval.tasks.response_doses",
    "genecompass.eval.tasks.response_arms",
    "genecompass.eval.baselines.response_signatures",
    "genecompass.eval.tasks.response_signatures",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0
