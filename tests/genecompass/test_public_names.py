"""What ``import genecompass as gc`` promises exists."""

import pytest

import genecompass


@pytest.mark.parametrize("name", [name for name in genecompass.__all__ if name != "__version__"])
def test_public_name_resolves_and_is_documented(name):
    assert getattr(genecompass, name).__doc__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = genecompass.no_such_thing
