"""What a stabilization goes on from is read as data."""

from __future__ import annotations

import pytest
import torch

from aa_plugins.training import state
from tests.attacks import ATTACKS, BROKEN, write_attack, write_broken


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_state_runs_code(attack, tmp_path):
    file, trace = write_attack(attack, tmp_path)
    file.rename(tmp_path / state.FILE)
    with pytest.raises(ValueError, match="it names .*weights and plain data only"):
        state.load(tmp_path, {}, torch.device("cpu"))
    assert not trace.exists()


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "missing"])
def test_a_file_that_is_no_state_is_named(kind, tmp_path):
    write_broken(kind, tmp_path).rename(tmp_path / state.FILE)
    with pytest.raises(ValueError, match=state.FILE):
        state.load(tmp_path, {}, torch.device("cpu"))
