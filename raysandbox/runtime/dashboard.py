"""Where Ray's dashboard shows a run."""

from __future__ import annotations

import os
import socket
from typing import Any

from raysandbox.runtime.session import is_connected, is_local

__all__ = ["dashboard_page", "this_driver"]


def dashboard_page() -> str | None:
    """Address of the page of this process's Ray job; None where no dashboard runs, as on a Ray of its own."""
    if not is_connected() or is_local():
        return None
    from ray._private.worker import get_dashboard_url

    url = get_dashboard_url()
    if not url:
        return None
    address = url if "://" in url else f"http://{url}"
    return f"{address.rstrip('/')}/#/jobs/{_ray_job()}"


def this_driver(page: str | None) -> dict[str, Any]:
    """Where this process is, as fields of an event.

    Args:
        page: what `dashboard_page` returned.
    """
    return {"node": socket.gethostname(), "pid": os.getpid(), "ray_job": _ray_job(), "dashboard": page}


def _ray_job() -> str | None:
    """Ray's id of this process's job; None without Ray."""
    if not is_connected():
        return None
    import ray

    return ray.get_runtime_context().get_job_id()
