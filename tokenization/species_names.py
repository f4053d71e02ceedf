"""Species as the field spells them: ``Homo sapiens``, ``NCBITaxon:9606``, ``Human`` are all ``human``."""

import re
from collections.abc import Sequence

_SPELLINGS = {
    "human": ("homo sapiens", "h sapiens", "hsapiens", "ncbitaxon 9606", "9606", "grch38", "hg38", "hg19"),
    "mouse": (
        "mus musculus",
        "m musculus",
        "mmusculus",
        "ncbitaxon 10090",
        "10090",
        "grcm38",
        "grcm39",
        "mm10",
        "mm39",
    ),
    "rat": ("rattus norvegicus", "ncbitaxon 10116", "10116"),
    "zebrafish": ("danio rerio", "ncbitaxon 7955", "7955"),
    "macaque": ("macaca mulatta", "rhesus macaque", "ncbitaxon 9544", "9544"),
    "pig": ("sus scrofa", "ncbitaxon 9823", "9823"),
    "chicken": ("gallus gallus", "ncbitaxon 9031", "9031"),
    "fly": ("drosophila melanogaster", "ncbitaxon 7227", "7227"),
}


def canonical_species(name: str, known: Sequence[str]) -> str:
    """The name under which a vocabulary knows a species; `name` itself where it knows none such.

    Parameters
    ----------
    name
        As users and files write it.
    known
        Species of the vocabulary.

    Examples
    --------
    >>> canonical_species("Homo sapiens", ["human", "mouse"]), canonical_species("yeti", ["human"])
    ('human', 'yeti')
    """
    if name in known:
        return name
    plain = re.sub(r"[^a-z0-9]+", " ", str(name).lower()).strip()
    for species in known:
        if plain in (species.lower().replace("_", " "), *_SPELLINGS.get(species, ())):
            return species
    return name
