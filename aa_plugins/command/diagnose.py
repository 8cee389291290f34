"""Why a network flickers, where, and what would help: one page.

aa-plugins diagnose timm:resnet50 --weights pretrained --photos photos
aa-plugins diagnose A.py B.py --weights a.pth b.pth --photos photos --images 8
aa-plugins diagnose torchvision:maskrcnn_resnet50_fpn --weights w.pth --photos photos
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from aa_plugins.command.networks import add_networks, load_networks, refuse_files
from aa_plugins.command.options import add_out

if TYPE_CHECKING:
    import torch

    from aa_plugins.diagnostics.stages import Step
    from aa_plugins.diagnostics.survey import PlaceAliasing
    from aa_plugins.hosts.interface import Network
    from aa_plugins.report.elements import Page, Picture, Section

STEP = 1  # pixels that the image moves by
STEP_IMAGES = 8  # of which every step is followed: three passes an image
MOVES = 9  # frames of the moving picture, one pixel apart


class Findings(NamedTuple):
    """What was found of one network."""

    aliasing: list[PlaceAliasing]
    steps: list[Step]
    filters: dict[str, dict[str, float]]
    reach: dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_networks(parser)
    add_out(parser, "out/diagnose")
    parser.add_argument("--photos", required=True, metavar="DIR", help="folder of any photos")
    parser.add_argument("--images", type=int, default=16, metavar="N", help="of them, at most")


def run(args: argparse.Namespace) -> None:
    from aa_plugins.datasets.images import Photos
    from aa_plugins.report import render

    if args.images < 1:
        raise ValueError(f"--images {args.images}: give 1 or more")
    photos = Photos(args.photos)
    refuse_files(args.networks, "diagnosed")
    networks = load_networks(args)
    if len(networks) == 1:
        networks |= blurred(*networks.items())
    count = min(args.images, len(photos))
    pictures = [photos.read(index)[0] for index in range(count)]
    found = {name: examine(name, network, pictures) for name, network in networks.items()}
    notes = {"command": " ".join(["aa-plugins diagnose", *args.arguments]), "images": count}
    page = page_of(found, moving(networks, pictures[0]), notes)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "diagnose.html"
    path.write_text(render.html(page), encoding="utf-8")
    for section in page.sections:
        for plot in section.items:
            if hasattr(plot, "figure"):
                stem = "_".join(plot.title.lower().split())[:60].replace(":", "").replace(",", "")
                plot.figure.savefig(args.out / f"{stem}.svg")
                plot.figure.savefig(args.out / f"{stem}.png", dpi=150)
    print(f"{page.verdict}\n\nSaved as {path}, its plots beside it as .svg and .png")


def examine(name: str, network: Network, pictures: list) -> Findings:
    """Aliasing and flicker at every place of a network."""
    import torch
    from tqdm import tqdm

    from aa_plugins.diagnostics.filters import watch
    from aa_plugins.diagnostics.stages import flicker_by_step
    from aa_plugins.diagnostics.survey import survey
    from aa_plugins.report.diagnosis import site_name

    def once(image: torch.Tensor) -> None:
        for _ in network.predict([image.squeeze(0)]):
            pass

    bar = tqdm(pictures, desc=f"{name}, aliasing")
    inputs = [network.prepared(picture) for picture in pictures]

    def seen(pixels: torch.Tensor, room: int = 0) -> torch.Tensor:
        return pixels[(..., *network.window(*pixels.shape[-2:], room))]

    with watch(network.model) as filters:
        aliasing = survey(network.model, (seen(inputs[i]) for i, _ in enumerate(bar)), once)
    alike = [seen(i, STEP) for i in inputs if i.shape == inputs[0].shape][:STEP_IMAGES]
    bar = tqdm(total=3 * len(alike), desc=f"{name}, steps")

    def counted(image: torch.Tensor) -> None:
        once(image)
        bar.update()

    with bar:
        batch = torch.stack(alike)
        steps = flicker_by_step(network.model, batch, (STEP,), network.stride, counted)
    sites = sites_of(network)
    aliasing = [replace(row, name=sites.get(site_name(row.name), row.name)) for row in aliasing]
    steps = [s._replace(name=sites.get(site_name(s.name), s.name)) for s in steps]
    return Findings(aliasing, steps, filters, reach_of(network, sites))


def sites_of(network: Network) -> dict[str, str]:
    """From the module that holds a filter to the one that strided, by their names: both networks of
    a comparison call a place alike then."""
    found = {}
    for name, module in network.model.named_modules():
        prefix = f"{name}." if name else ""
        for site in getattr(module, "aa_report", None) and module.aa_report.sites or ():
            host = site.place.split(" ", 1)[1]
            found[prefix + (site.name if host == "it" else host)] = prefix + site.name
    return found


def blurred(named: tuple[str, Network]) -> dict[str, Network]:
    """The same network with a fixed blur wherever one can be put, untrained, to see what it would
    help; nothing where it has filters already, or can't be followed."""
    import copy

    from aa_plugins.config import AAConfig
    from aa_plugins.surgery import antialias

    name, network = named
    twin = copy.copy(network)
    twin.model = copy.deepcopy(network.model)
    try:
        twin.core.aa_report = antialias(twin.core, AAConfig(filter="blur", stem=True))
    except ValueError:
        return {}
    return {f"{name} with a blur, untrained": twin}


def reach_of(network: Network, sites: dict[str, str]) -> dict[str, str]:
    """For every place that subsamples, the option that puts a filter there, or why none does."""
    import copy

    from aa_plugins.config import AAConfig
    from aa_plugins.diagnostics.places import places
    from aa_plugins.report.diagnosis import site_name
    from aa_plugins.surgery import antialias

    inside = {module: name for name, module in network.model.named_modules()}
    prefix = f"{inside[network.core]}." if network.core is not network.model else ""
    hosts = [site_name(p.name) for p in places(network.model) if p.filtered]
    reach = {sites.get(host, host): "has a filter" for host in hosts}
    try:
        report = antialias(copy.deepcopy(network.core), AAConfig(filter="blur"), dry_run=True)
    except ValueError:
        return reach  # converted already, or not to be followed
    for site in report.sites:
        reach[prefix + site.name] = "AAConfig() reaches it"
    for row in report.skipped:
        option = row.reason.endswith("=False")
        text = f"AAConfig({row.reason[:-5]}True) reaches it" if option else row.reason
        reach[prefix + row.name] = text
    return reach


def moving(networks: dict[str, Network], photo: Any) -> Picture:
    """Predictions of every network as the image moves pixel by pixel, side by side."""
    import cv2
    import numpy as np

    from aa_plugins.command.flicker import Frames, classes, dense, instances
    from aa_plugins.evaluation.motion import known_motion
    from aa_plugins.report.moving import moving_picture, side_by_side

    films = []
    for network in networks.values():
        pixels = network.prepared(photo)
        height, width = pixels.shape[-2:]
        resized = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        window = network.window(height, width, MOVES)
        pixels, resized = pixels[(..., *window)], resized[window]
        height, width = pixels.shape[-2:]
        views = [(..., slice(0, height - MOVES), slice(i, width - MOVES + i)) for i in range(MOVES)]
        frames = Frames(
            "moved",
            [resized[view[1:]] for view in views],
            lambda pixels=pixels, views=views: (pixels[view] for view in views),
            lambda h=height, w=width: (
                known_motion(h - MOVES, w - MOVES, (0, 1)) for _ in range(MOVES - 1)
            ),
            np.stack([np.zeros(MOVES), np.arange(MOVES)], 1),
        )
        step = {"semantic": dense, "classification": classes, "instance": instances}[network.task]
        films.append(step(frames, network.predict(frames.inputs()))[1])
    names = ", ".join(networks)
    return moving_picture(
        [side_by_side(parts) for parts in zip(*films)],
        f"Predictions of {names} as the image moves by one pixel a frame, what flickers in pink",
        f"From left to right: {names}. The image moves by one pixel a frame; what should move "
        "along and doesn't is pink.",
    )


def page_of(found: dict[str, Findings], film: Picture, notes: dict[str, Any]) -> Page:
    from aa_plugins.report.elements import Page, Section

    sections = [Section("As the image moves", "", [film]), *causes(found)]
    return Page("Why it flickers", verdict(found), sections, notes)


def causes(found: dict[str, Findings]) -> list[Section]:
    """Where flicker comes from, what places mix up, and what filters do there."""
    from aa_plugins.report.diagnosis import class_plot, energy_plot, step_plot
    from aa_plugins.report.elements import Section

    surveys = {name: f.aliasing for name, f in found.items()}
    steps = {name: f.steps for name, f in found.items() if f.steps}
    sections = []
    if steps:
        text = (
            "Each map of the network should move along with the image. Here is how far each "
            "is from that, before and after every place that subsamples."
        )
        sections.append(Section("Where it comes from", text, [step_plot(steps), reach(found)]))
    text = (
        "A place that keeps every second position folds the upper half of the spectrum onto the "
        "lower one. A filter before it takes out what can't be kept."
    )
    plots = [energy_plot(surveys), *(class_plot(name, rows) for name, rows in surveys.items())]
    sections.append(Section("What each subsampling mixes up", text, plots))
    return [*sections, *filters_section(found)]


def filters_section(found: dict[str, Findings]) -> list[Section]:
    """What predicted filters do, where there are any."""
    from aa_plugins.report.diagnosis import site_name
    from aa_plugins.report.elements import Section
    from aa_plugins.report.table import Table

    rows = [
        (f"{name}: {site_name(place)}", *(f"{value:.3f}" for value in measures.values()))
        for name, f in found.items()
        for place, measures in f.filters.items()
    ]
    if not rows:
        return []
    text = (
        "Departure: how far the predicted kernels are from the fixed blur, 0 to 1. Spread: how "
        "much they differ from place to place. Follows detail: by how many square pixels they "
        "blur more where there is more detail; negative ones keep it. Gain: the sum of their taps. "
        "Passes: the share of what aliases that they let pass, 0.027 for the fixed blur of 3 taps."
    )
    header = ("filter", "departure", "spread", "follows detail", "gain", "passes")
    return [Section("What the filters do", text, [Table(header, tuple(rows))])]


def reach(found: dict[str, Findings]) -> Any:
    """Places by what they bring in, and what reaches them."""
    from aa_plugins.report.diagnosis import site_name
    from aa_plugins.report.table import Table

    rows = []
    for name, f in found.items():
        for step in sorted(f.steps, key=lambda step: -float(step.brought_in.mean())):
            place = site_name(step.name)
            rows.append((name, place, interval(step.brought_in, "+"), f.reach.get(place, "–")))
    return Table(("network", "place", "flicker brought in", "remedy"), tuple(rows))


def verdict(found: dict[str, Findings]) -> str:
    """Which place flickers most, and what reaches it; how much of it other networks have left."""
    from aa_plugins.report.diagnosis import most_from, site_name

    name, first = next(iter(found.items()))
    if not first.steps:
        return f"{name} has no module that strides, so its steps can't be told apart."
    worst = most_from(first.steps)
    place = site_name(worst.name)
    text = (
        f"In {name}, {place} brings in most flicker as the image moves by one pixel: "
        f"{interval(worst.brought_in, '+')} of a map's own variation"
    )
    text += f" ({first.reach[place]})." if place in first.reach else "."
    for other, f in list(found.items())[1:]:
        if f.steps:
            ends = [interval(x.steps[-1].after[1]) for x in (first, f)]
            text += f" After the last subsampling {name} has {ends[0]}, {other} {ends[1]}."
    return text


def interval(values: torch.Tensor, sign: str = "") -> str:
    """A mean over images with its 95 % interval, as text."""
    from aa_plugins.evaluation.bootstrap import Mean, intervals

    entry = intervals({"mean": Mean(values.tolist())})["mean"]
    text = f"{entry['value']:{sign}.2f}"
    return text if entry["low"] is None else f"{text} [{entry['low']:.2f}, {entry['high']:.2f}]"
