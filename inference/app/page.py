"""A page in the browser on top of `explore`: upload a file or pick a sample, look, delete a gene."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path
from .explore import Exploration, delete_gene, explore, species_of

LARGEST_UPLOAD = "1gb"
_DELETION_COLUMNS = ("perturbation", "effect", "group", "n_cells", "mean", "null_mean", "p", "q")


def build_app(
    model: str | os.PathLike[str], *, samples: Mapping[str, str | os.PathLike[str]] | None = None, seed: int = 0
) -> Any:
    """Build the page for one checkpoint.

    Parameters
    ----------
    model
        Checkpoint or adapter: folder or ``owner/name[@revision]``.
    samples
        Name to ``.h5ad`` file: data sets to pick instead of uploading one.
    seed
        Of every draw.

    Returns
    -------
    gradio.Blocks
        Call ``.launch()`` on it.

    Raises
    ------
    ImportError
        gradio is not installed.

    Examples
    --------
    >>> build_app("runs/tiny").launch()  # doctest: +SKIP
    """
    gr = _gradio()
    samples = {name: str(path) for name, path in (samples or {}).items()}
    species = species_of(model)

    def look(upload: str | None, sample: str | None, name: str) -> tuple[Any, ...]:
        path = upload or samples.get(sample or "")
        try:
            if not path:
                raise InputError("no data: upload an .h5ad file or pick a sample")
            found = explore(path, model, name, seed=seed)
        except Exception as error:  # a visitor gets one line, whatever happened
            return None, _say_error(error, path), None, None, gr.update(choices=[], value=None), None, ""
        finally:
            if upload:
                Path(upload).unlink(missing_ok=True)
        first = found.genes[0] if found.genes else None
        choices = gr.update(choices=found.genes, value=first)
        return found, _say_found(found), draw_map(found), found.summary, choices, None, ""

    def delete(found: Exploration | None, gene: str | None, name: str) -> tuple[Any, str]:
        try:
            if found is None:
                raise InputError("look at a data set first")
            table = delete_gene(found, model, name, gene or "")
        except Exception as error:
            return None, _say_error(error)
        return _short(table), (
            f"Deleted **{gene}** in up to 100 cells. `p` compares with the deletion of 19 random genes of the same "
            "expression: a shift of an embedding alone means nothing."
        )

    # uploads are thrown away an hour after they came
    with gr.Blocks(title="GeneCompass", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        state = gr.State()
        gr.Markdown(f"# GeneCompass\nCells through `{_name_of(model)}`. Upload raw counts as `.h5ad`.")
        with gr.Row():
            with gr.Column(scale=1):
                upload = gr.File(label="Upload .h5ad", file_types=None, type="filepath", elem_id="upload")
                sample = gr.Dropdown(
                    list(samples), value=None, label="or a sample", visible=bool(samples), elem_id="sample"
                )
                chosen = gr.Dropdown(species, value=species[0], label="Species", elem_id="species")
                start = gr.Button("Look", variant="primary", elem_id="look")
                status = gr.Markdown(elem_id="status")
            with gr.Column(scale=2):
                picture = gr.Plot(label="Map of the cells", elem_id="map")
        groups = gr.Dataframe(label="Groups, scores and their genes", interactive=False, wrap=True, elem_id="groups")
        gr.Markdown("## Delete a gene in silico")
        with gr.Row():
            gene = gr.Dropdown([], label="Gene", allow_custom_value=True, elem_id="gene")
            remove = gr.Button("Delete it", elem_id="delete")
        said = gr.Markdown(elem_id="said")
        shifts = gr.Dataframe(label="Shift of the cell embedding", interactive=False, wrap=True, elem_id="shifts")
        start.click(
            look,
            [upload, sample, chosen],
            [state, status, picture, groups, gene, shifts, said],
            api_visibility="private",
        )
        remove.click(delete, [state, gene, chosen], [shifts, said], api_visibility="private")
    return page


def launch(page: Any, *, host: str = "127.0.0.1", port: int | None = None, open_browser: bool = False) -> None:
    """Serve a page until it is interrupted; nothing is fetched from or sent to other machines."""
    gr = _gradio()
    # the default themes fetch their fonts from elsewhere
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    page.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        theme=gr.themes.Default(**fonts),
        max_file_size=LARGEST_UPLOAD,
    )


def write_space(
    folder: str | os.PathLike[str], model: str, *, samples: Mapping[str, str | os.PathLike[str]] | None = None
) -> Path:
    """Write a folder that runs as a Space on the Hub: ``README.md``, ``app.py``, ``requirements.txt``, samples.

    Parameters
    ----------
    folder
        New folder.
    model
        Checkpoint on the Hub, ``owner/name[@revision]``: a Space cannot see local folders.
    samples
        Name to ``.h5ad`` file; copied along.

    Raises
    ------
    InputError
        `model` is a local folder, or `folder` exists.
    """
    import shutil

    folder = Path(folder)
    if Path(model).exists() or model.count("/") != 1:
        raise InputError(f"{model}: a Space loads its model from the Hub; push it first and name owner/name[@revision]")
    if folder.exists():
        raise InputError(f"{folder}: exists already; choose a new folder")
    copied = {name: f"samples/{Path(path).name}" for name, path in (samples or {}).items()}
    with atomic_path(folder) as temporary:
        (temporary / "samples").mkdir(parents=True)
        for name, target in copied.items():
            shutil.copyfile((samples or {})[name], temporary / target)
        (temporary / "README.md").write_text(_SPACE_CARD.format(model=model.partition("@")[0]), encoding="utf-8")
        (temporary / "requirements.txt").write_text("genecompass[app]\n", encoding="utf-8")
        (temporary / "app.py").write_text(_SPACE_APP.format(model=model, samples=copied), encoding="utf-8")
    return folder


_SPACE_CARD = """---
title: GeneCompass
sdk: gradio
app_file: app.py
models:
- {model}
---

Single-cell counts through a GeneCompass checkpoint: coverage, map, groups, one in-silico deletion.
"""
_SPACE_APP = '''"""Explore cells through {model}."""

from genecompass.inference.app.page import build_app, launch

launch(build_app("{model}", samples={samples!r}), host="0.0.0.0", port=7860)
'''


def draw_map(found: Exploration) -> Any:
    """Draw the shown cells, coloured by group, the largest groups first in the legend."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    colours = [colormaps["tab20"](place) for place in range(20)]
    size = max(3.0, min(20.0, 12_000 / max(1, found.n_shown)))
    for place, group in enumerate(found.groups.value_counts().index):
        mine = (found.groups == group).to_numpy()
        axes.scatter(
            found.positions[mine, 0],
            found.positions[mine, 1],
            s=size,
            color=colours[place % len(colours)],
            label=f"{group} ({mine.sum()})",
            linewidths=0,
        )
    axes.set_xlabel(f"{found.projection} 1")
    axes.set_ylabel(f"{found.projection} 2")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=6 / size**0.5)
    return figure


def _say_found(found: Exploration) -> str:
    drawn = f", {found.n_shown:,} drawn at random" if found.n_shown < found.n_cells else ""
    what = (
        "Labels and scores come from the checkpoint's classifier."
        if found.labelled
        else "This checkpoint is not fine-tuned for cell types: the groups are clusters of its embedding."
    )
    return f"**{found.n_cells:,} cells**{drawn}. {found.coverage}\n\n{what}"


def _say_error(error: BaseException, path: Any = None) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    # names in a file may be anything; they are not shown before they are known to be genes
    text = re.sub(r"'[^']{25,}'", "'...'", text)
    # an upload lies in a folder that means nothing to the reader
    return f"**Error:** {text.replace(str(path), Path(path).name) if path else text}"


def _short(table: pd.DataFrame) -> pd.DataFrame:
    """The shift of the cell embedding; the other effects are for `perturb`."""
    columns = [name for name in _DELETION_COLUMNS if name in table.columns]
    shown = table.loc[table["effect"] == "cell_cosine", columns].copy()
    for name in shown.select_dtypes("number"):
        if not pd.api.types.is_integer_dtype(shown[name]):
            shown[name] = [f"{value:.3g}" for value in shown[name]]
    return shown


def _name_of(model: str | os.PathLike[str]) -> str:
    return Path(model).name if Path(model).exists() else str(model)


def _gradio() -> Any:
    # before gradio is imported: it would report its start otherwise
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise ImportError('the app needs gradio: pip install "genecompass[app]"') from error
    return gradio
