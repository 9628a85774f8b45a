"""Real clusters on this machine, of two worker processes or so many, that find the tests' modules where we do."""

import os
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

HERE = str(Path(__file__).parent)


@contextmanager
def dask_here(workers=2, threads=1):
    """A client of a Dask cluster, of workers with one thread each, or with several."""
    import distributed

    with unwarned():
        cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=threads, dashboard_address=":0")
        client = distributed.Client(cluster, set_as_default=False)
    client.run(sys.path.insert, 0, HERE)
    yield client
    with unwarned():
        client.close()
        cluster.close()


@contextmanager
def ray_here(places=2):
    """What to give as `executor`, while Ray runs, with so many places."""
    import ray

    path = os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])])
    with unwarned():
        ray.init(
            num_cpus=places,
            include_dashboard=False,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
    yield "ray"
    with unwarned():
        ray.shutdown()


@contextmanager
def unwarned():
    """Opening and closing clusters warns of things of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
