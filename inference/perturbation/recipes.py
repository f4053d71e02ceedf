"""Documented experiments in which factors turn one kind of cell into another."""

from dataclasses import dataclass

from .edits import Kind


@dataclass(frozen=True)
class Recipe:
    """A documented reprogramming or differentiation experiment.

    Parameters
    ----------
    factors
        What is known to drive it, as human symbols.
    start, goal
        The kinds of cells, in words.
    kind
        What was done to the factors.
    source
        Where it is described.
    """

    factors: tuple[str, ...]
    start: str
    goal: str
    kind: Kind
    source: str


RECIPES: dict[str, Recipe] = {
    "reprogramming": Recipe(
        ("POU5F1", "SOX2", "KLF4", "MYC"),
        "fibroblasts",
        "pluripotent stem cells",
        "overexpress",
        "Takahashi and Yamanaka, Cell 126, 663-676 (2006)",
    ),
    "gonadal": Recipe(
        ("NR5A1", "GATA4", "WT1", "TCF21", "NR2F1"),
        "embryonic stem cells",
        "gonadal somatic cells",
        "overexpress",
        "Yang et al., Cell Research 34, 830-845 (2024)",
    ),
    "beta-from-alpha": Recipe(
        ("PAX4", "PDX1", "MAFA"),
        "pancreatic alpha cells",
        "pancreatic beta cells",
        "overexpress",
        "PAX4: Collombat et al., Cell 138, 449-462 (2009); PDX1 and MAFA: Xiao et al., Cell Stem Cell 22, 78-90 (2018)",
    ),
    "beta-from-duct": Recipe(
        ("PDX1", "NEUROG3", "MAFA", "PAX6"),
        "pancreatic duct cells",
        "pancreatic beta cells",
        "overexpress",
        "Lee et al., eLife 2, e00940 (2013)",
    ),
    "cardiac": Recipe(
        ("GATA4", "MEF2C", "TBX5"),
        "fibroblasts, or pluripotent stem cells",
        "cardiomyocytes",
        "overexpress",
        "fibroblasts: Ieda et al., Cell 142, 375-386 (2010); stem cells: Bai et al., Sci Rep 5, 15014 (2015)",
    ),
}
