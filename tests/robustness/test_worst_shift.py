"""The search for the worst shift, against all of them."""

from __future__ import annotations

import numpy as np
import pytest

from aa_plugins.evaluation import surface_shifts
from aa_plugins.robustness.worst_shift import search_all, search_within_budget, worst_within

RADIUS = 6


class Landscape:
    """How right a prediction is at a shift: a slope to a pit somewhere."""

    def __init__(self, pit, depth=0.0):
        self.pit, self.depth, self.seen = pit, depth, {}

    def __call__(self, shift):
        assert shift not in self.seen, f"{shift} is looked at twice"
        assert max(map(abs, shift)) <= RADIUS
        distance = np.hypot(*np.subtract(shift, self.pit))
        self.seen[shift] = self.depth + float(distance)
        return self.seen[shift]


def test_every_shift_is_looked_at_the_nearest_first():
    look = Landscape((3, -2), depth=1.0)
    search_all(look, RADIUS)
    assert set(look.seen) == {(0, 0), *surface_shifts(RADIUS)}
    distances = [max(map(abs, shift)) for shift in look.seen]
    assert distances == sorted(distances)


def test_nothing_is_looked_at_once_all_is_wrong():
    look = Landscape((0, 2))
    search_all(look, RADIUS)
    assert list(look.seen)[-1] == (0, 2) and len(look.seen) <= 5 * 5


@pytest.mark.parametrize("pit", [(3, -2), (-6, 6), (0, 0), (5, 1)])
def test_a_budget_is_kept_and_finds_the_bottom_of_a_slope(pit):
    look = Landscape(pit, depth=1.0)
    search_within_budget(look, RADIUS, budget=60, seed=0)
    assert len(look.seen) <= 60
    assert min(look.seen, key=look.seen.get) == pit
    again = Landscape(pit, depth=1.0)
    search_within_budget(again, RADIUS, budget=60, seed=0)
    assert again.seen == look.seen


def test_a_budget_larger_than_all_shifts_looks_at_none_twice():
    look = Landscape((1, 1), depth=1.0)
    search_within_budget(look, 1, budget=100, seed=3)
    assert len(look.seen) <= 9 and min(look.seen, key=look.seen.get) == (1, 1)


def test_the_worst_within_a_radius():
    found = {(0, 0): (3.0, "a"), (1, 0): (3.0, "b"), (0, -4): (1.0, "c"), (5, 5): (0.0, "d")}
    assert [worst_within(found, radius) for radius in (0, 1, 4, 5)] == ["a", "a", "c", "d"]
    with pytest.raises(ValueError, match="budget 1: give 2"):
        search_within_budget(Landscape((0, 0)), RADIUS, budget=1, seed=0)
