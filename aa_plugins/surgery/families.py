"""Families with a place of their own for the filter, as rows of data."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from aa_plugins.layers import strided
from aa_plugins.layers.merging import FilterAfterMerging
from aa_plugins.layers.strided import stride_of
from aa_plugins.surgery.rows import BLURS, MERGINGS, Names, Site, Skipped
from aa_plugins.surgery.trace import Trace

# Residual blocks by class name, the same in timm, torchvision, mmseg and Detectron2: which
# convolution may carry the stride, and which one reads its activation, where the filter goes.
RESIDUAL_BLOCKS = {
    "BasicBlock": ("conv1", "conv2"),
    "Bottleneck": ("conv2", "conv3"),
    "BottleneckBlock": ("conv2", "conv3"),
    "DeformBottleneckBlock": ("conv2", "conv3"),
}
SHORTCUTS = ("downsample", "shortcut")
# Stems that pool by a function call (Detectron2), which has no module to convert.
FUNCTIONAL_POOL_STEMS = ("BasicStem",)


def family_sites(names: Names, trace: Trace) -> Iterator[Site | Skipped]:
    """Sites of the residual blocks and stems, and of Swin's mergings."""
    yield from _stem_sites(names)
    yield from _residual_sites(names)
    yield from _merging_sites(names, trace)


def _residual_sites(names: Names) -> Iterator[Site | Skipped]:
    """Main path after the activation, and the shortcut's input, of every strided block."""
    dilated = _first_dilated_blocks(names)
    for block in names:
        if type(block).__name__ not in RESIDUAL_BLOCKS:
            continue
        if any(_is_uneven(module) for module in block.modules()):
            continue  # the generic rule names it, and converts the rest
        conv, reader = (getattr(block, a, None) for a in RESIDUAL_BLOCKS[type(block).__name__])
        deformable = hasattr(block, "conv2_offset")
        if not (isinstance(conv, nn.Conv2d) or deformable) or not isinstance(reader, nn.Conv2d):
            continue
        if conv is not block.conv1 and stride_of(block.conv1) > 1:
            yield from _strided_entry_sites(block, names)
            continue
        stride = stride_of(conv)
        if stride == 1 and block not in dilated:
            continue
        kinds = ("conv", "shortcut") if stride > 1 else ("dilated", "dilated")
        if BLURS.fullmatch(type(getattr(block, "aa", None)).__name__):
            yield Skipped(names[block.aa], kinds[0], "blurs already")
        else:
            channels = reader.in_channels
            host, dense = names[reader], (names[conv],)
            if deformable:  # its offsets come from a convolution beside it
                dense += (names[block.conv2_offset],)
                yield Skipped(dense[1], kinds[0], f"becomes dense with {dense[0]}")
            yield Site(dense[0], kinds[0], channels, stride, host, strided.FilterBefore, dense)
        yield from _shortcut_site(block, stride, kinds[1], names)


def _is_uneven(module: nn.Module) -> bool:
    """Whether a module's stride differs between the axes."""
    stride = getattr(module, "stride", 1)
    return isinstance(stride, (tuple, list)) and len(set(stride)) > 1


def _strided_entry_sites(block: nn.Module, names: Names) -> Iterator[Site | Skipped]:
    """MSRA style, the stride in a bottleneck's first 1×1: one filter on what the block reads.

    The shortcut reads the same map, so the filter is computed once for both.
    """
    name, stride = names[block.conv1], stride_of(block.conv1)
    dense = (name,)
    for shortcut in _shortcut_site(block, stride, "shortcut", names):
        if shortcut.mixin is strided.FilterBefore:
            dense += (shortcut.name,)
            yield Skipped(shortcut.name, "shortcut", f"shares the filter of {name}")
        else:
            yield shortcut
    host = names[block] if len(dense) > 1 else name
    yield Site(name, "conv", block.conv1.in_channels, stride, host, strided.FilterBefore, dense)


def _stem_sites(names: Names) -> Iterator[Site]:
    """A 7×7 convolution, ReLU and max-pool, of which only the convolution is a module."""
    for stem, name in names.items():
        if type(stem).__name__ in FUNCTIONAL_POOL_STEMS:
            conv, channels = names[stem.conv1], stem.conv1.out_channels
            yield Site(name, "max_pool", channels, 2, name, strided.FilterAfterStemPool, dense=())
            yield Site(conv, "stem", channels, 2, conv, strided.FilterAfterReLU)


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
        elif stride_of(conv) == stride and max(conv.kernel_size) == 1:
            name = names[conv]
            yield Site(name, kind, channels, stride, name, strided.FilterBefore)


def _first_dilated_blocks(names: Names) -> set[nn.Module]:
    """First blocks of the residual stages in which dilation takes the place of a stride."""
    found = set()
    dilation_before = 1
    for stage in names:
        blocks = [b for b in stage.children() if type(b).__name__ in RESIDUAL_BLOCKS]
        if not blocks:
            continue
        conv = getattr(blocks[-1], RESIDUAL_BLOCKS[type(blocks[-1]).__name__][0], None)
        if not hasattr(conv, "dilation"):
            continue
        if conv.dilation[0] > dilation_before:
            found.add(blocks[0])
        dilation_before = conv.dilation[0]
    return found


def _merging_sites(names: Names, trace: Trace) -> Iterator[Site]:
    """Swin's patch mergings, of maps or of tokens: filtered after norm and reduction."""
    for module, name in names.items():
        if not MERGINGS.fullmatch(type(module).__name__) or not _halves(name, trace):
            continue
        channels = trace.calls[name][0].output_shapes[0][-1]
        yield Site(name, "merging", channels, 2, name, FilterAfterMerging)


def _halves(name: str, trace: Trace) -> bool:
    """Whether a module turns (B, H, W, C) into (B, ⌈H/2⌉, ⌈W/2⌉, C'), or (B, H·W, C), with H and W
    among its arguments, into (B, ⌈H/2⌉·⌈W/2⌉, C')."""
    if trace.why_not_once(name) is not None:
        return False
    call = trace.calls[name][0]
    if len(call.input_shapes) != 1 or len(call.output_shapes) != 1:
        return False
    (before,), (after,) = call.input_shapes, call.output_shapes
    if len(before) == len(after) == 4:
        return all(after[axis] == -(-before[axis] // 2) for axis in (1, 2))
    if len(before) != 3 or len(after) != 3 or len(call.numbers) != 2:
        return False
    height, width = call.numbers
    return before[1] == height * width and after[1] == -(-height // 2) * -(-width // 2)
