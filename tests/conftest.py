"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system at memory://, empty again afterwards."""
    import fsspec

    store = fsspec.filesystem("memory")
    yield store
    store.store.clear()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The empty bucket `lab` on a local server that speaks S3, found as users' are: by the environment."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    place = f"http://{host}:{port}"
    with urlopen(Request(f"{place}/moto-api/reset", method="POST")):
        pass  # the server's content is its process's, and outlives it
    monkeypatch.setenv("AWS_ENDPOINT_URL", place)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3").clear_instance_cache()
    store = fsspec.filesystem("s3")
    store.mkdir("lab")
    yield store
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()
