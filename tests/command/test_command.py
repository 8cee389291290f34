"""The command line: help without torch, errors in one line, exit codes."""

import subprocess
import sys

import pytest

from aa_plugins.command import COMMANDS, INTERRUPTED, main, run


@pytest.fixture
def broken(monkeypatch):
    """`inspect` raises what it is told to."""
    from aa_plugins.command import inspect

    def with_error(error):
        def fail(args):
            raise error

        monkeypatch.setattr(inspect, "run", fail)

    return with_error


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_answers_within_a_second_and_without_torch(arguments):
    code = (
        "import sys, time; start = time.process_time()\n"
        "from aa_plugins.command import main\n"
        f"try: main({arguments})\n"
        "except SystemExit as exit: assert exit.code == 0\n"
        "assert 'torch' not in sys.modules\n"
        "assert time.process_time() - start < 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: aa-plugins")


def test_every_command_teaches_by_an_example(capsys):
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            run(name, ["--help"])
        assert capsys.readouterr().out.count(f"aa-plugins {name}") >= 3


@pytest.mark.parametrize("arguments", [[], ["inspct"], ["inspect", "--nope"]])
def test_a_wrong_command_line_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("size=3: give\n  more"), "error: size=3: give more"),
        (FileNotFoundError(2, "No such file", "x.pth"), "error: [Errno 2] No such file: 'x.pth'"),
        (KeyError("a"), "error: KeyError: 'a' (--debug shows the trace)"),
    ],
)
def test_an_error_is_one_line_and_ends_with_1(broken, capsys, error, said):
    broken(error)
    assert run("inspect", ["timm:resnet18"]) == 1
    assert capsys.readouterr().err == f"{said}\n"


def test_debug_shows_the_trace(broken, capsys):
    broken(KeyError("a"))
    assert run("inspect", ["timm:resnet18", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_says_how_to_go_on(monkeypatch, capsys):
    from aa_plugins.command import consistency

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(consistency, "run", interrupted)
    assert run("consistency", ["timm:resnet18"]) == INTERRUPTED
    assert "the same command with --resume goes on" in capsys.readouterr().err


@pytest.mark.slow
def test_registration_of_timms_names_costs_little():
    code = (
        "import time, torch, timm, aa_plugins.surgery\n"
        "start = time.process_time(); import aa_plugins.timm\n"
        "print(time.process_time() - start)"
    )
    seconds = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(2)]
    assert min(seconds) < 0.3


def test_hosts_do_not_register_timms_names_to_be_imported():
    code = "import sys, aa_plugins.hosts.module, aa_plugins.torchvision.host\n"
    code += "assert 'aa_plugins.timm.models' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
