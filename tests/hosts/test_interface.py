"""Every host gives a network with all that the interface writes down."""

import inspect
from importlib.util import find_spec

import pytest

from aa_plugins.hosts import Host
from aa_plugins.hosts.interface import Network


@pytest.mark.parametrize("host", Host, ids=lambda host: host.value)
def test_a_host_leaves_nothing_out(host):
    if find_spec(host.value) is None and host is not Host.PLAIN:
        pytest.skip(f"{host.title} isn't installed")
    module = host.load()
    assert callable(module.load)
    kinds = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Network) and kind is not Network
    ]
    assert kinds and not any(inspect.isabstract(kind) for kind in kinds)
