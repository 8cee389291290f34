"""The 15 corruptions at 5 severities of ImageNet-C (Hendrycks & Dietterich, ICLR 2019).

Those of Cityscapes-C, COCO-C and VOC-C (Michaelis et al., arXiv 1907.07484) are the same, on images
of any size of at least 32 pixels. A library makes them: imagecorruptions-imaug, `pip install
aa-plugins[robustness]`. What it draws depends on the image's pixels, the corruption and the
severity alone: not on the order of images, the process or the network.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import partial

import numpy as np

from aa_plugins.robustness.conditions import CLEAN, Condition

CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 32
SEEDED_APART = ("impulse_noise", "glass_blur")  # these don't draw from NumPy's global state


def corrupted(image: np.ndarray, corruption: str, severity: int) -> np.ndarray:
    """A corrupted image, (H, W, 3) uint8 in RGB as the image itself.

    Raises:
        ModuleNotFoundError: without the library.
        ValueError: for an unknown corruption or severity, or a side under 32 pixels.
    """
    _check((corruption,), (severity,))
    if min(image.shape[:2]) < SMALLEST:
        height, width = image.shape[:2]
        raise ValueError(f"{height}x{width} is too small for {corruption}: 32 pixels are the least")
    require_library()
    from imagecorruptions import corrupt

    described = f"{corruption}/{severity}/{image.shape}".encode() + image.tobytes()
    seed = int.from_bytes(hashlib.sha256(described).digest()[:4], "little")
    options = {"seed": seed} if corruption in SEEDED_APART else {}
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        return np.ascontiguousarray(corrupt(image, severity, corruption, **options))
    finally:
        np.random.set_state(state)


def corruption_conditions(
    corruptions: tuple[str, ...] = CORRUPTIONS, severities: tuple[int, ...] = SEVERITIES
) -> list[Condition]:
    """The images as they are, then every corruption at every severity.

    Raises:
        ModuleNotFoundError: without the library.
        ValueError: for an unknown corruption or severity.
    """
    require_library()
    _check(corruptions, severities)
    return [
        Condition(CLEAN),
        *(
            Condition(f"{name}/{level}", partial(corrupted, corruption=name, severity=level))
            for name in corruptions
            for level in severities
        ),
    ]


def require_library() -> None:
    """Raise ModuleNotFoundError, with the remedy, without the library that makes corruptions."""
    if importlib.util.find_spec("imagecorruptions") is None:
        raise ModuleNotFoundError(
            "corruptions are made by imagecorruptions-imaug: pip install 'aa-plugins[robustness]'"
        )


def _check(corruptions: tuple[str, ...], severities: tuple[int, ...]) -> None:
    if unknown := sorted(set(corruptions) - set(CORRUPTIONS)):
        raise ValueError(f"no corruption {unknown[0]!r}: choose of {', '.join(CORRUPTIONS)}")
    if unknown := sorted(set(severities) - set(SEVERITIES)):
        raise ValueError(f"severity {unknown[0]}: give 1 to 5")
