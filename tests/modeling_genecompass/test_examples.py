"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import genecompass.modeling_genecompass as room
import pytest

MODULES = [info.name for info in pkgutil.walk_packages(room.__path__, room.__name__ + ".")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0
