import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aa_plugins.evaluation import Protocol, extract, preset, surface_shifts
from aa_plugins.evaluation.protocol import PRESETS
from aa_plugins.evaluation.views import Box, View, fourier_shift

protocols = st.builds(
    Protocol,
    kind=st.sampled_from(["grid", "circular"]),
    stride=st.sampled_from([2, 4, 7, 8, 16]),
    shifts=st.lists(
        st.tuples(st.integers(-9, 9), st.integers(-9, 9)).filter(
            lambda s: any(d % 2 and d % 7 for d in s)
        ),
        max_size=4,
        unique=True,
    ).map(tuple),
    controls=st.booleans(),
    margin=st.sampled_from([0, 4, 32]),
) | st.builds(
    Protocol,
    kind=st.sampled_from(["grid", "pairs", "circular"]),
    stride=st.sampled_from([4, 8, 16]),
    pairs=st.integers(1, 4),
    max_shift=st.integers(1, 12),
    seed=st.integers(0, 3),
    controls=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(protocols, st.integers(64, 100), st.integers(64, 100), st.integers(0, 5))
def test_plan_keeps_its_promises(protocol, height, width, image_id):
    plan = protocol.plan(height, width, image_id)
    coordinates = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    )
    views = [extract(coordinates, view) for view in plan.views]
    assert len(set(plan.views)) == len(plan.views)
    assert sorted({i for pair in plan.pairs for i in (pair.a, pair.b)}) == list(range(len(views)))
    for view in plan.views:
        assert view.crop.intersection(Box(0, 0, height, width)) == view.crop
        assert (view.crop.height, view.crop.width) == (plan.crop.height, plan.crop.width)
        assert view.crop.height % protocol.stride == view.crop.width % protocol.stride == 0
    for pair in plan.pairs:
        a, b = views[pair.a][(..., *pair.box_a.slices)], views[pair.b][(..., *pair.box_b.slices)]
        assert a.numel() > 0
        assert torch.equal(a, b)
        assert torch.equal(a, coordinates[(..., *pair.region.slices)])
        # The offset as promised: b shows at its first pixel what lies `shift` further than a's.
        size = torch.tensor([plan.crop.height, plan.crop.width])
        moved = views[pair.b][:, 0, 0] - views[pair.a][:, 0, 0] - torch.tensor(pair.shift)
        assert torch.all(moved % size == 0) if plan.circular else torch.all(moved == 0)
        if pair.role == "mean":
            assert any(d % protocol.stride for d in pair.shift)
        elif pair.role == "multiple":
            assert not any(d % protocol.stride for d in pair.shift)
        elif pair.role != "noise_floor":
            # As far from the borders of both views as from those of all other such pairs.
            size = (plan.crop.height, plan.crop.width)
            for axis in (0, 1):
                ends = [
                    end
                    for box in (pair.box_a, pair.box_b)
                    for end in (box[axis], size[axis] - box[axis + 2])
                ]
                shift = pair.shift[axis]
                assert min(ends) >= (plan.margin or 0)
                assert (
                    plan.circular
                    or sorted(ends) == [plan.margin or 0] * 2 + [(plan.margin or 0) + shift] * 2
                )
            distance = max(pair.shift) - protocol.stride
            half = protocol.stride // 2
            assert abs(distance) in {"same_phase": [0], "near": [1], "half": [half]}[pair.role]
            assert min(pair.shift) == 0
    room = min(plan.crop.height, plan.crop.width) - 3 * protocol.stride // 2
    assert (plan.margin is None) == (not protocol.controls or room <= 2 * protocol.margin)


def test_default_grid():
    plan = Protocol(stride=16).plan(192, 256)
    assert plan.crop == Box(16, 16, 176, 240)
    assert len(plan.views) == 20  # S/2 is one of the listed shifts
    assert [pair.shift for pair in plan.pairs if pair.role == "mean"] == [
        (dy * d, dx * d) for d in (1, 2, 4, 8) for dy, dx in ((1, 0), (0, 1), (1, 1))
    ]
    roles = [pair.role for pair in plan.pairs]
    assert [roles.count(r) for r in ("noise_floor", "same_phase", "near", "half")] == [1, 2, 4, 4]
    (floor,) = (pair for pair in plan.pairs if pair.role == "noise_floor")
    assert floor.a != floor.b  # the same pixels, but run twice
    assert plan.views[floor.a].crop == plan.views[floor.b].crop
    assert plan.shifted_views() == list(range(3, 15))


def test_crop_is_the_largest_multiple_that_leaves_room():
    for height in range(64, 120):
        crop = Protocol(stride=8, shifts=((3, 0),), controls=False).plan(height, 64).crop
        room = height - crop.height
        assert crop.height % 8 == 0
        assert 6 <= room < 14
        assert crop.top == room // 2


def test_multiples_of_any_compared_stride_stay_out_of_the_mean():
    roles = {
        pair.shift: pair.role for pair in Protocol(stride=16, other_strides=(8,)).plan(99, 99).pairs
    }
    assert roles[8, 0] in ("multiple", "half")
    plan = Protocol(stride=16, other_strides=(8,), controls=False).plan(99, 99)
    assert {p.shift for p in plan.pairs if p.role == "multiple"} == {(8, 0), (0, 8), (8, 8)}
    plan = Protocol(stride=4, kind="pairs", pairs=200, max_shift=9).plan(64, 64)
    assert all(any(d % 4 for d in p.shift) for p in plan.pairs if p.role == "mean")


def test_plan_is_the_same_in_another_process():
    protocol = Protocol(kind="pairs", pairs=5, stride=8, seed=3)
    code = (
        "from aa_plugins.evaluation import Protocol; "
        "print(Protocol(kind='pairs', pairs=5, stride=8, seed=3).plan(90, 95, 'image 7').views)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == str(protocol.plan(90, 95, "image 7").views)
    assert protocol.plan(90, 95, "image 8").views != protocol.plan(90, 95, "image 7").views


def test_random_offsets_cover_their_range():
    protocol = preset("zhang", pairs=3000)
    plan = protocol.plan(256, 256)
    tops = {view.crop.top for view in plan.views}
    assert (min(tops), max(tops)) == (0, 31)
    assert plan.crop.height == plan.crop.width == 224
    shifts = [pair.shift for pair in preset("lps", pairs=3000).plan(96, 96).pairs]
    assert {min(map(min, shifts)), max(map(max, shifts))} == {-32, 32}


def test_presets():
    plan = preset("zou-worst").plan(100, 120)
    assert (plan.crop.height, plan.crop.width) == (59, 79)
    assert len(plan.shifted_views()) == 20
    tops = {plan.views[i].crop.top - plan.crop.top for i in plan.shifted_views()}
    assert tops == {0, *(s * d for d in (1, 2, 5, 10, 20) for s in (1, -1))}
    plan = preset("lps-linear", max_shift=5, seed=1).plan(20, 20)
    image = torch.arange(400.0).reshape(1, 20, 20)
    for pair in plan.pairs:
        (dy, dx), view = pair.shift, extract(image, plan.views[pair.b])
        assert torch.count_nonzero(view) >= (20 - abs(dy)) * (20 - abs(dx)) - 1
        assert (pair.region.height, pair.region.width) == (20 - abs(dy), 20 - abs(dx))
    for name in PRESETS:
        assert Protocol.from_dict(preset(name).to_dict()) == preset(name)
        assert preset(name).label == f"{name} (re-implementation), S = 32"
    with pytest.raises(ValueError, match="unknown preset 'zoo'.*zou-worst"):
        preset("zoo")


def test_dict_round_trip():
    protocol = Protocol(kind="subpixel", stride=16, shifts=((0.25, 0), (1.5, -0.5)))
    restored = Protocol.from_dict(json.loads(json.dumps(protocol.to_dict())))
    assert restored == protocol
    assert restored.fingerprint() == protocol.fingerprint()
    assert protocol.fingerprint() != Protocol(kind="subpixel", stride=8).fingerprint()
    with pytest.raises(ValueError, match="unknown protocol field 'strid'"):
        Protocol.from_dict({"strid": 3})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "spiral"}, "kind is 'spiral'; choose one of grid"),
        ({"stride": 1}, "stride is 1; give"),
        ({"stride": 16, "other_strides": (12,)}, "12, which doesn't divide stride 16"),
        ({"shifts": ((0, 0),)}, "noise floor"),
        ({"shifts": ((0.5, 0),)}, "use kind 'subpixel'"),
        ({"shifts": ((32, 0), (0, 64))}, "no shift is left"),
        ({"shifts": (3,)}, "give a list of"),
        ({"shifts": ((1, 0), (1.0, 0.0))}, "list each one once"),
        ({"kind": "pairs"}, "draw at least 1 pair"),
        ({"kind": "pairs", "pairs": 2, "max_shift": 0}, "max_shift is 0"),
        ({"pairs": 2, "shifts": ((1, 0),)}, "give one of them"),
        ({"pairs": -2}, "pairs is -2"),
        ({"controls": "yes"}, "controls is 'yes'"),
        ({"crop": "big"}, "crop is 'big'"),
        ({"crop": (3,)}, r"crop is \(3,\)"),
    ],
)
def test_bad_values_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**fields)


def test_small_images_are_named():
    with pytest.raises(ValueError, match="100x300 is too small.*height 100 needs 128 or more"):
        Protocol(stride=32).plan(100, 300)
    Protocol(stride=32).plan(128, 128)
    with pytest.raises(ValueError, match="width 250 needs 256 or more"):
        preset("zhang").plan(256, 250)


def test_surface():
    shifts = surface_shifts(2)
    assert len(set(shifts)) == len(shifts) == 24
    assert len(Protocol(shifts=shifts, controls=False).plan(64, 64).views) == 25


def test_fourier_shift():
    # A band-limited signal that is even about both borders, as the mirrored image is.
    y = (torch.arange(16, dtype=torch.float64) + 0.5)[:, None] * torch.pi / 16
    x = (torch.arange(12, dtype=torch.float64) + 0.5) * torch.pi / 12
    image = torch.cos(3 * y) * torch.cos(2 * x)
    dy, dx = 0.25, -0.5
    expected = torch.cos(3 * (y + dy * torch.pi / 16)) * torch.cos(2 * (x + dx * torch.pi / 12))
    torch.testing.assert_close(fourier_shift(image, (dy, dx)), expected)
    noise = torch.rand(3, 11, 8, dtype=torch.float64)
    torch.testing.assert_close(fourier_shift(noise, (1.0, 2.0))[:, :-1, :-2], noise[:, 1:, 2:])


def test_subpixel_views():
    protocol = Protocol(kind="subpixel", stride=4, shifts=((0.5, 0), (1.25, -0.75)), controls=False)
    plan = protocol.plan(20, 20)
    assert plan.views[1] == View(plan.crop, fraction=(0.5, 0.0))
    assert plan.views[2] == View(plan.crop.moved(1, 0), fraction=(0.25, -0.75))
    ramp = torch.arange(20.0)[:, None].expand(20, 20)
    moved = extract(ramp, plan.views[2]) - extract(ramp, plan.views[0])
    assert torch.allclose(moved[3:-3], torch.tensor(1.25), atol=0.1)
    assert extract(ramp.to(torch.uint8), plan.views[1]).dtype == torch.float32


def test_extract_from_an_array():
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 40), dtype=np.uint8)
    for kind in ("grid", "circular"):
        for view in Protocol(kind=kind, stride=8).plan(40, 40).views:
            cut = extract(image, view)
            assert cut.dtype == np.uint8
            assert np.array_equal(cut, extract(torch.from_numpy(image), view).numpy())
