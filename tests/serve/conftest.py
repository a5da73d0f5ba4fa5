"""Models and a server of all of them, for the tests of this folder."""

import pytest
from served import application_of, service_of, write_models
from starlette.testclient import TestClient


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Model folders by name."""
    return write_models(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def client(folders):
    """A client of a server with all models."""
    service = service_of(*folders.values())
    with TestClient(application_of(service), raise_server_exceptions=False) as client:
        yield client
