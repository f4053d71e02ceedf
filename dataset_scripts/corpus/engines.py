"""Who does the work: joblib's back ends, local processes by default, Dask or Ray for a cluster; the same bytes."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import joblib
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.progress import Progress

ENGINES = ("loky", "dask", "ray", "sequential")


@contextlib.contextmanager
def engine(name: str = "loky", *, jobs: int = 1, address: str | None = None) -> Iterator[Callable[..., list[Any]]]:
    """Open an engine and give a function that runs tasks on it.

    Parameters
    ----------
    name
        ``loky`` (local processes), ``dask``, ``ray`` or ``sequential``.
    jobs
        Processes; -1 for one per core. On a cluster that exists already its own size counts.
    address
        Scheduler of an existing Dask or Ray cluster; None starts a local one.

    Yields
    ------
    callable
        ``run(function, items, label)``: results in the order of the items. Functions and items travel by pickle.

    Raises
    ------
    InputError
        For an unknown engine.
    ImportError
        When Dask or Ray is not installed.

    Examples
    --------
    >>> with engine("sequential") as run:
    ...     run(abs, [-1, 2], "numbers")
    [1, 2]
    """
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}; choose one of {', '.join(ENGINES)}")
    jobs = joblib.cpu_count() if jobs == -1 else jobs
    if jobs == 1 and name == "loky":
        name = "sequential"
    with contextlib.ExitStack() as stack:
        if name == "dask":
            stack.enter_context(_dask(jobs, address))
        elif name == "ray":
            stack.enter_context(_ray(jobs, address))
        elif name == "loky":
            stack.enter_context(joblib.parallel_config(backend="loky", n_jobs=jobs, inner_max_num_threads=1))
        else:
            stack.enter_context(joblib.parallel_config(backend="sequential"))

        # Ray's backend gives results only all at once: its progress bar shows the end alone
        return_as = "list" if name == "ray" else "generator"

        def run(function: Callable[[Any], Any], items: Iterable[Any], label: str) -> list[Any]:
            todo = list(items)
            results = joblib.Parallel(return_as=return_as)(joblib.delayed(function)(item) for item in todo)
            return list(Progress(results, total=len(todo), desc=label))

        yield run


@contextlib.contextmanager
def _dask(jobs: int, address: str | None) -> Iterator[None]:
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise ImportError('the Dask engine needs: pip install "genecompass[cluster]"') from error
    with contextlib.ExitStack() as stack:
        if address is None:
            cluster = stack.enter_context(
                LocalCluster(n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None)
            )
            client = stack.enter_context(Client(cluster))
        else:
            client = stack.enter_context(Client(address))
        # Joblib must run on this client; the tasks are few and large, so they travel one by one.
        stack.enter_context(joblib.parallel_config(backend="dask", client=client, wait_for_workers_timeout=60))
        yield


@contextlib.contextmanager
def _ray(jobs: int, address: str | None) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ImportError("the Ray engine needs: pip install ray") from error
    ray.init(address=address, **({} if address else {"num_cpus": jobs, "include_dashboard": False}))
    try:
        register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=-1):
            yield
    finally:
        ray.shutdown()
