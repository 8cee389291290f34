"""Says at the top of every test run which hosts it covers: a skipped host is never a silent one."""

from importlib.util import find_spec

HOSTS = {
    "timm": "make setup",
    "mmseg": "make setup",
    "detectron2": "make detectron2",
}


def pytest_report_header() -> list[str]:
    """Name the hosts that are installed, and for the others the command that installs them."""
    return [
        f"{host}: installed"
        if find_spec(host)
        else f"{host}: NOT installed, its tests are skipped (`{command}` installs it)"
        for host, command in HOSTS.items()
    ]
