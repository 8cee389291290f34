"""AAConfig: defaults, dictionaries, and errors that name the value and the remedy."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from aa_plugins import AAConfig


def test_defaults_are_the_documented_ones():
    expected = {
        "filter": "adaptive",
        "kernel_size": 3,
        "groups": 8,
        "normalize": "group",
        "init": "binomial",
        "pad_mode": "reflect",
        "max_pool": True,
        "avg_pool": True,
        "conv": True,
        "shortcut": True,
        "merging": True,
        "stem": False,
        "dilated": False,
    }
    assert expected.items() <= AAConfig().to_dict().items()


def test_dictionaries_go_there_and_back():
    config = AAConfig(filter="bank", kernel_size=5, stem=True, include="layer3.*", taps=(3, 5))
    values = config.to_dict()
    assert AAConfig.from_dict(values) == config
    assert AAConfig.from_dict(json.loads(json.dumps(values))) == config
    assert AAConfig.of(values) == AAConfig.of(config) == config
    assert AAConfig.of(None) == AAConfig.of({}) == AAConfig()


def test_is_frozen_and_hashable():
    config = AAConfig()
    with pytest.raises(FrozenInstanceError):
        config.groups = 4
    assert len({config, AAConfig(), AAConfig(groups=4)}) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"filter": "gauss"}, "filter='gauss' is unknown: choose one of adaptive, bank, trained, "),
        ({"normalize": "all"}, "normalize='all' is unknown: choose one of group, joint"),
        ({"init": "zero"}, "init='zero' is unknown: choose one of binomial, identity, paper"),
        ({"pad_mode": "same"}, "pad_mode='same' is unknown: choose one of reflect, replicate"),
        ({"kernel_size": 1}, "kernel_size=1 is out of range: choose 2 to 7 taps"),
        ({"kernel_size": 8, "filter": "blur"}, "kernel_size=8 is out of range"),
        ({"kernel_size": 4}, 'kernel_size=4 is even.*choose 3, 5 or 7.*filter="blur"'),
        ({"kernel_size": 2, "filter": "bank"}, "kernel_size=2 is even"),
        ({"kernel_size": "3"}, "kernel_size='3' must be a positive whole number"),
        ({"groups": 0}, "groups=0 must be a positive whole number"),
        ({"groups": True}, "groups=True must be a positive whole number"),
        ({"stem": "yes"}, "stem='yes' must be True or False"),
        ({"conv": 1}, "conv=1 must be True or False"),
        ({"normalize": "joint"}, 'normalize="joint".*use init="paper", or normalize="group"'),
        ({"predictor_input": "x"}, "predictor_input='x' is unknown: choose one of raw, blurred"),
        ({"filter": "bank", "taps": (3, 4)}, r"taps=\(3, 4\) must be two or more odd numbers"),
        ({"taps": (1, 3)}, r"taps=\(1, 3\) are members of a bank, not of filter='adaptive'"),
        ({"filter": "trained", "init": "paper"}, "init='paper' is unknown: choose one of binomial"),
        ({"kernels": 3}, "kernels=3 is unknown: choose one of any, small"),
        (
            {"activation": "gelu"},
            "activation='gelu' is unknown: choose one of same, silu, softplus",
        ),
        ({"filter": "none", "activation": "silu"}, 'stands in front of filters.*filter="trained"'),
        ({"filt_size": 3}, "unknown AAConfig field 'filt_size': known are filter, kernel_size"),
    ],
)
def test_errors_name_value_and_remedy(values, message):
    with pytest.raises(ValueError, match=message):
        AAConfig.from_dict(values)


def test_joint_normalisation_goes_with_the_published_start():
    assert AAConfig(normalize="joint", init="paper").normalize == "joint"


def test_a_name_alone_is_no_configuration():
    with pytest.raises(ValueError, match="aa='blur' is neither an AAConfig nor its fields"):
        AAConfig.of("blur")
