import warnings

import pytest


@pytest.fixture(scope="session")
def cluster():
    """A local Ray of 2 CPUs and 2 GPUs that exist in name only."""
    from raysandbox.runtime.session import ensure_ray, shutdown_ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        ensure_ray(num_cpus=2, num_gpus=2)
    yield
    shutdown_ray()
