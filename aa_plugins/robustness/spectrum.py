"""A network without one of the 16 radial bands of its input's spectrum (Vasconcelos et al., ICCV
2021): which frequencies its accuracy, mIoU or AP rests on."""

from __future__ import annotations

from functools import partial

from aa_plugins.diagnostics.bands import BANDS, without_band
from aa_plugins.robustness.conditions import CLEAN, Condition


def band_conditions(bands: int = BANDS) -> list[Condition]:
    """The images as they are, then without each band, from the lowest: "band/0", "band/1", …

    Bands are of the network's input, after any resize: to take one away commutes with
    normalization, as the mean stays.
    """
    taken = [partial(without_band, band=band, bands=bands) for band in range(bands)]
    return [Condition(CLEAN), *(Condition(f"band/{i}", of_input=f) for i, f in enumerate(taken))]
