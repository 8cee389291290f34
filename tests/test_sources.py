"""What docs/sources.md and docs/robustness.md say is a command is one."""

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from aa_plugins import get_config_file
from aa_plugins.command import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT / "docs/sources.md").read_text()
TEXT = SOURCES + (ROOT / "docs/robustness.md").read_text()
LINES = sorted(set(re.findall(r"^aa-plugins .*$|(?<=`)aa-plugins [^`]* --[^`]*(?=`)", TEXT, re.M)))
EXPERIMENTS = sorted(set(re.findall(r"tools/experiments run (\w+)", TEXT)))


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_one_that_the_parser_takes(line):
    _, name, *arguments = shlex.split(line)
    assert name in COMMANDS
    module, parser = import_module(f"aa_plugins.command.{name}"), argparse.ArgumentParser()
    module.add_arguments(parser)
    args = parser.parse_args(arguments)
    if name == "train":
        assert Path(get_config_file(args.config_file)).is_file()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_declared(name):
    assert (ROOT / f"configs/experiments/{name}.yaml").is_file()


def test_variants_in_parentheses_are_declared():
    found = re.findall(r"run (\w+)` \(`([\w-]+)`", TEXT)
    assert found
    for name, variant in found:
        declared = (ROOT / f"configs/experiments/{name}.yaml").read_text()
        assert re.search(rf"^  {variant}:", declared, re.M), (name, variant)


def test_every_row_has_a_verdict():
    rows = [line for line in SOURCES.splitlines() if line.startswith("| ") and "---" not in line]
    assert all(cell.strip() for row in rows for cell in row.strip("|").split("|"))
