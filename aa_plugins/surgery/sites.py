"""Where a network lowers its resolution: families as rows of data, and one generic rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from aa_plugins.layers import strided
from aa_plugins.layers.strided import Filtered, stride_of

# Residual blocks by class name, the same in timm, torchvision, mmseg: which convolution may carry
# the stride, and which one reads its activation, where the filter goes.
RESIDUAL_BLOCKS = {"BasicBlock": ("conv1", "conv2"), "Bottleneck": ("conv2", "conv3")}
SHORTCUTS = ("downsample",)
MERGINGS = ("PatchMerging",)
BLURS = ("BlurPool2d", "AdaptiveBlurPool2d", "FilterBankPool2d")
ACTIVATIONS = ("ReLU", "GELU", "SiLU", "Hardswish", "LeakyReLU")


@dataclass(frozen=True)
class Site:
    """One place where resolution is lowered.

    Attributes:
        name: the module that carries the stride.
        kind: "max_pool", "avg_pool", "conv", "shortcut", "merging", "stem" or "dilated".
        channels: of the map to be filtered.
        stride: pixels of that map between kept positions; 1 at "dilated" sites.
        host: the module that gets the filter.
        mixin: how `host` is converted.
    """

    name: str
    kind: str
    channels: int
    stride: int
    host: str
    mixin: type[Filtered]


@dataclass(frozen=True)
class Skipped:
    """A place that lowers resolution, or blurs, and is left alone, with the reason."""

    name: str
    kind: str
    reason: str


def find_sites(model: nn.Module) -> tuple[list[Site], list[Skipped]]:
    """Every site of `model` in forward order, and what must not be touched."""
    sites: dict[str, Site] = {}
    skipped: dict[str, Skipped] = {}
    names = {module: name for name, module in model.named_modules()}
    for rule in (_residual_sites, _merging_sites, _remaining_sites):
        for found in rule(model, names):
            if found.name not in sites and found.name not in skipped:
                (sites if isinstance(found, Site) else skipped)[found.name] = found
    order = {name: index for index, name in enumerate(names.values())}
    return (
        sorted(sites.values(), key=lambda site: order[site.name]),
        sorted(skipped.values(), key=lambda row: order[row.name]),
    )


Names = dict[nn.Module, str]
Rule = Callable[[nn.Module, Names], Iterator["Site | Skipped"]]


def _residual_sites(model: nn.Module, names: Names) -> Iterator[Site | Skipped]:
    """Main path after the activation, and the shortcut's input, of every strided block."""
    dilated = _first_dilated_blocks(model)
    for block in names:
        if type(block).__name__ not in RESIDUAL_BLOCKS:
            continue
        conv, reader = (getattr(block, a, None) for a in RESIDUAL_BLOCKS[type(block).__name__])
        if not isinstance(conv, nn.Conv2d) or not isinstance(reader, nn.Conv2d):
            continue
        stride = stride_of(conv)
        if stride == 1 and block not in dilated:
            continue
        kinds = ("conv", "shortcut") if stride > 1 else ("dilated", "dilated")
        if type(getattr(block, "aa", None)).__name__ in BLURS:
            yield Skipped(names[block.aa], kinds[0], "blurs already")
        else:
            channels = reader.in_channels
            host = names[reader]
            yield Site(names[conv], kinds[0], channels, stride, host, strided.FilterBefore)
        yield from _shortcut_site(block, stride, kinds[1], names)


def _shortcut_site(block: nn.Module, stride: int, kind: str, names: Names) -> Iterator[Site]:
    """A strided convolution reads a filtered map; an average pool is filtered after."""
    for attribute in SHORTCUTS:
        layers = list((getattr(block, attribute, None) or nn.Identity()).modules())
        conv = next((layer for layer in layers if isinstance(layer, nn.Conv2d)), None)
        pool = next((layer for layer in layers if isinstance(layer, nn.AvgPool2d)), None)
        if conv is None:
            continue
        channels = conv.in_channels
        if pool is not None and stride_of(pool) > 1:
            name = names[pool]
            yield Site(name, kind, channels, stride, name, strided.FilterAfterAvgPool)
        elif stride_of(conv) == stride:
            name = names[conv]
            yield Site(name, kind, channels, stride, name, strided.FilterBefore)


def _first_dilated_blocks(model: nn.Module) -> set[nn.Module]:
    """First blocks of the residual stages in which dilation takes the place of a stride."""
    found = set()
    dilation_before = 1
    for stage in model.modules():
        blocks = [b for b in stage.children() if type(b).__name__ in RESIDUAL_BLOCKS]
        if not blocks:
            continue
        conv = RESIDUAL_BLOCKS[type(blocks[-1]).__name__][0]
        dilation = getattr(blocks[-1], conv).dilation[0]
        if dilation > dilation_before:
            found.add(blocks[0])
        dilation_before = dilation
    return found


def _merging_sites(model: nn.Module, names: Names) -> Iterator[Site | Skipped]:
    """Swin's patch mergings, NHWC: filtered after norm and reduction."""
    for module, name in names.items():
        if type(module).__name__ in MERGINGS:
            channels = module.reduction.out_features
            yield Site(name, "merging", channels, 2, name, strided.FilterAfterMerging)


def _remaining_sites(model: nn.Module, names: Names) -> Iterator[Site | Skipped]:
    """Any other strided convolution or pool: dense, then the filter."""
    channels, seen_conv = None, False
    modules = list(names.items())
    for index, (module, name) in enumerate(modules):
        if type(module).__name__ in BLURS:
            yield Skipped(name, "blur", "blurs already")
        elif isinstance(module, nn.Conv2d):
            channels = module.out_channels
            if max(module.stride) > 1:
                following = modules[index + 1 : index + 4]
                yield _conv_site(module, name, following, first=not seen_conv)
            seen_conv = True
        elif isinstance(module, nn.MaxPool2d) and stride_of(module) > 1:
            stride, mixin = stride_of(module), strided.FilterAfterMaxPool
            yield Site(name, "max_pool", channels, stride, name, mixin)
        elif isinstance(module, nn.AvgPool2d) and stride_of(module) > 1:
            stride, mixin = stride_of(module), strided.FilterAfterAvgPool
            yield Site(name, "avg_pool", channels, stride, name, mixin)


def _conv_site(
    conv: nn.Conv2d, name: str, following: list[tuple[nn.Module, str]], first: bool
) -> Site | Skipped:
    if not first:
        return Site(name, "conv", conv.out_channels, stride_of(conv), name, strided.FilterAfter)
    if max(conv.kernel_size) <= max(conv.stride):
        return Skipped(name, "stem", "patch embedding: its windows don't overlap")
    host = next((n for m, n in following if type(m).__name__ in ACTIVATIONS), name)
    return Site(name, "stem", conv.out_channels, stride_of(conv), host, strided.FilterAfter)
