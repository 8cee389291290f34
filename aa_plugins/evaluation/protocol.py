"""Protocols: which views of an image are compared with which.

Shift consistency asks how far a prediction changes when the image moves by a few pixels. A
:class:`Protocol` says how it is moved, and is stored in every result file.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields

from aa_plugins.evaluation.plan import plan_views, role
from aa_plugins.evaluation.views import ViewPlan

KINDS = ("grid", "pairs", "circular", "subpixel")

# One row a preset. All are re-implementations from the papers' descriptions.
PRESETS: dict[str, dict] = {
    # Zhang, ICML 2019: two offsets from {0..31}², 224 of a 256-pixel image, top-1 agreement.
    "zhang": {"kind": "pairs", "pairs": 1, "max_shift": 31, "crop": (224, 224)},
    # Zou et al., BMVC 2020: random overlapping crops. The range of their offsets isn't known.
    "zou": {"kind": "pairs", "pairs": 5, "max_shift": 32},
    # Zou et al.'s worst-shift AP: 20 shifts along the axes, crops of (H - 41) x (W - 41).
    "zou-worst": {
        "shifts": tuple(
            shift for d in (1, 2, 5, 10, 20) for shift in ((d, 0), (-d, 0), (0, d), (0, -d))
        ),
        "crop": 41,
    },
    # LPS (Rojas-Gomez et al., NeurIPS 2022): 5 shifts in ±32, circular ...
    "lps": {"kind": "circular", "pairs": 5, "crop": 0},
    # ... and linear: the image moves out of its frame and zeros come in.
    "lps-linear": {"pairs": 5, "crop": 0, "zero_pad": True},
}


def grid_shifts(distances: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """(d, 0), (0, d) and (d, d) for every distance d."""
    return tuple(shift for d in distances for shift in ((d, 0), (0, d), (d, d)))


def surface_shifts(radius: int) -> tuple[tuple[int, int], ...]:
    """Every whole shift up to ``radius`` pixels in both directions of both axes, without (0, 0)."""
    steps = range(-radius, radius + 1)
    return tuple((dy, dx) for dy in steps for dx in steps if dy or dx)


@dataclass(frozen=True)
class Protocol:
    """How the views of an image are chosen.

    Args:
        kind: ``grid`` (the reference crop against crops at listed shifts), ``pairs`` (random crop
            against random crop), ``circular`` (the reference crop rolled on itself) or
            ``subpixel`` (Fourier shifts by fractions of a pixel; labels are compared at the same
            pixel, so a contour that rightly moves by a fraction counts against every model alike).
        stride: S, the total stride in pixels of the network's input; the largest one where models
            of several strides are compared.
        shifts: (dy, dx) in pixels; by default (d, 0), (0, d), (d, d) for d in 1, 2, 4, 8, or 1/4
            and 1/2 for ``subpixel``. A shift that is a multiple of a stride is kept out of the
            mean.
        pairs: number of random pairs of an image (``pairs``), or of random shifts in place of a
            list (``grid``, ``circular``).
        max_shift: range of the random shifts: both crops of a pair lie in a window ``max_shift``
            pixels larger than a crop; a random shift lies in [-max_shift, max_shift].
        seed: of the random offsets, together with the image's id.
        controls: shift 0 and the shifts around S.
        margin: the shifts around S are scored at least that many pixels from every border of
            both views; where that leaves nothing of an image, its aliasing loss is undefined.
        other_strides: strides of the other models compared; each divides ``stride``.
        crop: ``"stride"``: the largest multiples of S that leave room for the shifts; a number:
            the image less that many pixels; (height, width): that size.
        zero_pad: crops may leave the image, zeros come in.
        multiples_in_mean: random or listed multiples of S count like any other shift.
        preset: the paper whose procedure this re-implements; empty for our own.
    """

    kind: str = "grid"
    stride: int = 32
    shifts: tuple[tuple[float, float], ...] = ()
    pairs: int = 0
    max_shift: int = 32
    seed: int = 0
    controls: bool = True
    margin: int = 32
    other_strides: tuple[int, ...] = ()
    crop: str | int | tuple[int, int] = "stride"
    zero_pad: bool = False
    multiples_in_mean: bool = False
    preset: str = ""

    def __post_init__(self) -> None:
        _require(self.kind in KINDS, f"kind is {self.kind!r}; choose one of {', '.join(KINDS)}")
        _require(
            _whole(self.stride) and self.stride >= 2,
            f"stride is {self.stride!r}; give the model's total stride in pixels, 2 or more",
        )
        for name in ("pairs", "max_shift", "seed", "margin"):
            value = getattr(self, name)
            _require(_whole(value) and value >= 0, f"{name} is {value!r}; give a whole number >= 0")
        for name in ("controls", "zero_pad", "multiples_in_mean"):
            value = getattr(self, name)
            _require(isinstance(value, bool), f"{name} is {value!r}; give true or false")
        for stride in self.other_strides:
            _require(
                _whole(stride) and stride >= 2 and self.stride % stride == 0,
                f"other_strides has {stride!r}, which doesn't divide stride {self.stride}; "
                "set stride to the least common multiple of all strides",
            )
        object.__setattr__(self, "other_strides", tuple(self.other_strides))
        self._check_shifts()
        self._check_crop()

    def _check_shifts(self) -> None:
        _require(
            self.kind != "pairs" or not self.shifts,
            f"kind 'pairs' draws its shifts, but {len(self.shifts)} are listed; "
            "set pairs and max_shift, or kind 'grid'",
        )
        random = self.kind == "pairs" or (self.pairs > 0 and self.kind != "subpixel")
        _require(
            not (random and self.shifts) and (random or not self.pairs),
            f"both {len(self.shifts)} shifts and {self.pairs} random pairs; give one of them",
        )
        if random:
            _require(self.pairs >= 1, f"pairs is {self.pairs}; draw at least 1 pair an image")
            _require(self.max_shift >= 1, f"max_shift is {self.max_shift}; give at least 1 pixel")
            return
        default = grid_shifts((0.25, 0.5) if self.kind == "subpixel" else (1, 2, 4, 8))
        try:
            shifts = tuple((float(dy), float(dx)) for dy, dx in self.shifts or default)
        except (TypeError, ValueError):
            raise ValueError(
                f"shifts is {self.shifts!r}; give a list of (dy, dx) in pixels"
            ) from None
        whole = self.kind != "subpixel"
        for shift in shifts:
            _require(all(map(math.isfinite, shift)), f"shift {shift} isn't finite; give pixels")
            _require(any(shift), "shift (0, 0) is the noise floor; set controls=true instead")
            _require(
                not whole or all(d.is_integer() for d in shift),
                f"shift {shift} isn't whole; use kind 'subpixel' for fractions of a pixel",
            )
        shifts = tuple(tuple(int(d) if d.is_integer() else d for d in shift) for shift in shifts)
        _require(len(set(shifts)) == len(shifts), f"shifts {shifts} repeat; list each one once")
        _require(
            any(role(self, shift) == "mean" for shift in shifts),
            f"all of shifts {shifts} are multiples of stride {self.stride}, so no shift is left "
            "for the mean; list others",
        )
        object.__setattr__(self, "shifts", shifts)

    def _check_crop(self) -> None:
        crop = self.crop
        if not isinstance(crop, str) and not _whole(crop):
            crop = tuple(crop)
            object.__setattr__(self, "crop", crop)
        _require(
            crop == "stride"
            or (_whole(crop) and crop >= 0)
            or (isinstance(crop, tuple) and len(crop) == 2 and all(_whole(c) and c for c in crop)),
            f"crop is {crop!r}; give 'stride', a number of pixels to leave out, or (height, width)",
        )

    def to_dict(self) -> dict:
        """A dict of JSON types; :meth:`from_dict` restores the protocol."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> Protocol:
        """The protocol of a dict, as from a result file. Unknown names raise ValueError."""
        known = [field.name for field in fields(cls)]
        for name in values:
            _require(name in known, f"unknown protocol field {name!r}; known: {', '.join(known)}")
        values = dict(values)
        if "shifts" in values:
            values["shifts"] = tuple(map(tuple, values["shifts"]))
        return cls(**values)

    @property
    def label(self) -> str:
        """A name for tables, such as ``grid, S = 16`` or ``zou (re-implementation), S = 64``."""
        name = f"{self.preset} (re-implementation)" if self.preset else self.kind
        return f"{name}, S = {self.stride}"

    def fingerprint(self) -> str:
        """12 hexadecimal digits that differ between protocols."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def plan(self, height: int, width: int, image_id: str | int = "") -> ViewPlan:
        """The views of an image and the pairs to compare, see
        :func:`~aa_plugins.evaluation.plan.plan_views`."""
        return plan_views(self, height, width, image_id)


def preset(name: str, **changes) -> Protocol:
    """The protocol of a paper, re-implemented: ``zhang``, ``zou``, ``zou-worst``, ``lps``,
    ``lps-linear``. As published, without controls and with every shift in the mean.

    Args:
        changes: fields to set otherwise, such as ``stride`` or ``seed``.
    """
    name = name.replace("_", "-")
    _require(name in PRESETS, f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    row = {"preset": name, "controls": False, "multiples_in_mean": True}
    return Protocol(**{**row, **PRESETS[name], **changes})


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
