"""The block length against arch 8's ``optimal_block_length`` (circular), on the same series."""

import numpy as np
import pytest

from aa_plugins.evaluation.block_length import block_length


def series(correlation: float, frames: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=frames)
    values = [noise[0]]
    for index in range(1, frames):
        values.append(correlation * values[-1] + noise[index])
    return np.array(values)


@pytest.mark.parametrize(
    "correlation, frames, seed, expected",
    [
        (0.0, 200, 1, 8.67722324729437),
        (0.5, 100, 2, 2.0955394054277927),
        (0.5, 400, 3, 8.756429465660743),
        (0.9, 300, 4, 25.2118677183031),
        (0.9, 1000, 5, 48.402121435423474),
        (-0.4, 250, 6, 2.1945838914607396),
    ],
)
def test_it_is_that_of_arch(correlation, frames, seed, expected):
    assert block_length([series(correlation, frames, seed)]) == pytest.approx(expected)


def test_several_sequences_are_taken_within_themselves():
    long = series(0.9, 1000, 5)
    parts = block_length(np.split(long, 4))
    assert parts == pytest.approx(block_length([long]), rel=0.5)
    # What is alike between ends of different sequences doesn't count: many short ones need no
    # longer blocks than a frame where frames are independent.
    pairs = [np.array([v]) for v in series(0.0, 100, 7)]
    assert block_length(pairs) == 1


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [0.0] * 50])
def test_what_does_not_vary_needs_no_blocks(values):
    assert block_length([np.array(values)]) == 1
