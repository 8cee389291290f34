"""Conversion proves itself: on a real input, each site and the whole against the plain network.

Everything runs on structural copies, in which subsampling takes the place of every filter, so
that nothing in the network changes before its conversion is known to hold.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from aa_plugins.layers.strided import FilterAfter, FilterAfterReLU, FilterBefore, make_dense
from aa_plugins.layers.subsample import Subsample
from aa_plugins.surgery.convert import convert_site
from aa_plugins.surgery.follow import Followed
from aa_plugins.surgery.inputs import SEED, Inputs, quiet
from aa_plugins.surgery.places import own
from aa_plugins.surgery.rows import Site
from aa_plugins.surgery.twin import tensors_in, twin_of

# Largest difference, relative to the largest value of a map, that rounding explains.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.05}
STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
TORCHS_OWN = tuple(cls.forward for cls in STRIDED)
# A parameter that starts smaller than this hides what it scales: a zero-initialised norm or head.
HIDING = 1e-3


@dataclass
class Verdict:
    """What the comparison found.

    Attributes:
        sites: those that hold, some with another host than asked for.
        failed: the reason for each name of a site that doesn't hold.
        notes: what was compared, and what could not be seen.
    """

    sites: list[Site]
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Run:
    """What one forward pass gave: its results, what modules keep, and the outputs of some."""

    inputs: Inputs
    tensors: dict[str, torch.Tensor]
    outputs: dict[str, list[Any]]


def verify(followed: Followed, sites: list[Site]) -> Verdict:
    """Compare `followed.model` with what its conversion at `sites` would make of it.

    Costs two forward passes of the followed part, on a small input where it takes one, and another
    for every round in which a site fails.
    """
    model = followed.model
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        return Verdict(sites, notes=["not verified: the network has no values yet (meta device)"])
    with quiet(model):
        drawn = _rouse(model)
        try:
            plain = _run_plain(followed, sites, drawn)
        except Exception as error:  # any error of any network
            return Verdict(sites, notes=[f"not verified: no test input runs ({_line(error)})"])
        alone = _failing_alone(followed, sites)
        verdict = _Comparison(followed, plain, drawn).of([s for s in sites if s.name not in alone])
        verdict.failed |= alone
    size = ", ".join("×".join(map(str, t.shape)) for t in plain.inputs.tensors())
    what = followed.part or "the whole network"
    verdict.notes.insert(0, f"verified on {size}: {what}, site by site and as a whole")
    unseen = [s.name for s in verdict.sites if not _saw(plain.outputs.get(s.host, []))]
    if unseen:
        verdict.notes.append(f"not seen, as the test input gives zero there: {', '.join(unseen)}")
    return verdict


class _Comparison:
    """Converts copies of a network and compares them with one run of the plain network."""

    def __init__(self, followed: Followed, plain: _Run, drawn: dict[int, torch.Tensor]) -> None:
        self.followed, self.plain, self.drawn = followed, plain, drawn

    def of(self, sites: list[Site]) -> Verdict:
        """Rounds until all that is left holds."""
        verdict = Verdict(list(sites))
        while verdict.sites:
            failed, whole = self._differences(verdict.sites)
            if not failed and whole is None:
                break
            if not failed:  # something reads a map that no site's host stands before
                alone = {site: self._differences([site]) for site in verdict.sites}
                failed = {s.name: f.get(s.name) or w for s, (f, w) in alone.items() if f or w}
                failed = failed or {site.name: whole for site in verdict.sites}
            verdict.sites = [kept for site in verdict.sites for kept in _left(site, failed)]
            names = {site.name for site in verdict.sites}
            verdict.failed |= {n: reason for n, reason in failed.items() if n not in names}
        return verdict

    def _differences(self, sites: list[Site]) -> tuple[dict[str, str], str | None]:
        """The reason for every site that differs, and what differs of the whole, if anything."""
        twin = twin_of(self.followed.model, self.drawn)
        try:
            for site in sites:
                convert_site(twin, site, Subsample(site.stride), self.followed.part)
            watch = _Watch(sites, self.plain)
            watch.attach(twin)
        except Exception as error:
            return {site.name: f"it can't be converted: {_line(error)}"}, None
        try:
            found = _run(twin, self.followed.part, self.plain.inputs)
        except Exception as error:
            reason = f"its dense version fails: {_line(error)}"
            if watch.failed:
                return watch.failed, None
            return dict.fromkeys(watch.open(), reason), reason
        return watch.failed, _difference(found.tensors, self.plain.tensors)


class _Watch:
    """Compares the modules of a converted copy as they run, and lets them go on with plain maps."""

    def __init__(self, sites: list[Site], plain: _Run) -> None:
        self.sites, self.plain = sites, plain
        self.failed: dict[str, str] = {}
        self.count: dict[str, int] = defaultdict(int)

    def attach(self, twin: nn.Module) -> None:
        for site in self.sites:
            for name in site.lowered:
                if name != site.host:
                    twin.get_submodule(name).register_forward_hook(self._dense(site, name))
            twin.get_submodule(site.host).register_forward_hook(self._host(site))

    def open(self) -> list[str]:
        """The last site whose dense module ran, and whose host has not run as often."""
        ran = [s for s in self.sites if self.count[s.name] > self.count[s.host]]
        return [ran[-1].name] if ran else []

    def _dense(self, site: Site, name: str) -> Callable[..., None]:
        # What is inside a host that filters its input reads a map that is subsampled already.
        inside = name.startswith(f"{site.host}." if site.host else "")
        kept = Subsample(1 if inside and site.mixin is FilterBefore else site.stride)

        def compare(module: nn.Module, args: Any, output: Any) -> None:
            expected = self._expected(name)
            if expected is not None and isinstance(output, torch.Tensor):
                self._note(site, kept(output), expected)

        return compare

    def _host(self, site: Site) -> Callable[..., Any]:
        def compare(module: nn.Module, args: Any, output: Any) -> Any:
            expected = self._expected(site.host)
            if expected is not None:
                early = issubclass(site.mixin, FilterAfterReLU)
                self._note(site, output, expected.relu() if early else expected)
            return _snapshot(expected)

        return compare

    def _expected(self, name: str) -> Any:
        outputs, index = self.plain.outputs.get(name, []), self.count[name]
        self.count[name] += 1
        return outputs[index] if index < len(outputs) else None

    def _note(self, site: Site, found: Any, expected: Any) -> None:
        difference = _difference(dict(tensors_in(found)), dict(tensors_in(expected)))
        if difference is not None:
            reason = f"its dense version, subsampled, isn't what it computes ({difference})"
            self.failed.setdefault(site.name, reason)


def _failing_alone(followed: Followed, sites: list[Site]) -> dict[str, str]:
    """The reason for every site of a class of one's own that fails at another size than the test
    input's: a convolution or pool that computes its border from its stride and its input's size."""
    failed: dict[str, str] = {}
    plain, dense = twin_of(followed.model, {}), twin_of(followed.model, {})
    for site in sites:
        for name in site.lowered:
            module, twin = plain.get_submodule(name), dense.get_submodule(name)
            if not isinstance(module, STRIDED) or type(module).forward in TORCHS_OWN:
                continue
            make_dense(twin)
            shape = followed.trace.calls[name][0].input_shapes[0]
            sizes = module.kernel_size, getattr(module, "dilation", 1)
            least = 2 * site.stride + math.prod(max(_numbers(size)) for size in sizes)
            for extra in range(site.stride):
                size = least + extra, least + (extra + 1) % site.stride
                x = torch.randn(1, shape[-3], *size).to(site.device, site.dtype)
                try:
                    expected, found = module(x), Subsample(site.stride)(twin(x))
                except Exception:  # it takes more than a map: what the whole network shows counts
                    break
                difference = _difference({"": found}, {"": expected})
                if difference is not None:
                    at = "×".join(map(str, size))
                    failed[site.name] = f"its dense version isn't what it computes at {at}"
                    break
    return failed


def _numbers(value: int | Iterable[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _left(site: Site, failed: dict[str, str]) -> Iterable[Site]:
    """A site that holds, or the same with its filter right after the convolution to try."""
    if site.name not in failed:
        return [site]
    elsewhere = site.host != site.name and site.mixin is FilterAfter
    return [replace(site, host=site.name)] if elsewhere else []


def _run_plain(followed: Followed, sites: list[Site], drawn: dict[int, torch.Tensor]) -> _Run:
    """The plain network on the first test input that it takes."""
    names = {name for site in sites for name in (site.host, *site.lowered)}
    errors = []
    for inputs in followed.inputs.to_run():
        twin = twin_of(followed.model, drawn)
        for site in sites:
            own(twin, site.host)
        outputs: dict[str, list[Any]] = defaultdict(list)
        for name in names:
            twin.get_submodule(name).register_forward_hook(_keep(outputs[name]))
        try:
            run = _run(twin, followed.part, inputs)
        except Exception as error:
            errors.append(error)
            continue
        if all(bool(t.isfinite().all()) for t in run.tensors.values() if t.is_floating_point()):
            run.outputs = outputs
            return run
        errors.append(ValueError(f"values that aren't finite on {inputs}"))
    raise errors[-1]


def _keep(outputs: list[Any]) -> Callable[..., None]:
    return lambda module, args, output: outputs.append(_snapshot(output))


def _snapshot(output: Any) -> Any:
    """An output as it is now: what follows may change it in place."""
    return tree_map_only(torch.Tensor, torch.clone, output)


def _run(twin: nn.Module, part: str, inputs: Inputs) -> _Run:
    torch.default_generator.manual_seed(SEED)
    inputs = inputs.map(torch.clone)
    result = twin.get_submodule(part)(*inputs.args, **inputs.kwargs)
    kept = dict(tensors_in(result, "its output"))
    for name, module in twin.named_modules():
        if not isinstance(module, Subsample):
            own_state = {k: v for k, v in vars(module).items() if k != "_parameters"}
            kept |= {f"{name}.{path}": tensor for path, tensor in tensors_in(own_state)}
    return _Run(inputs, kept, {})


def _rouse(model: nn.Module) -> dict[int, torch.Tensor]:
    """For every parameter that hides what it scales, by its id, one that doesn't."""
    drawn: dict[int, torch.Tensor] = {}
    for parameter in model.parameters():
        if not parameter.is_floating_point() or parameter.numel() == 0:
            continue
        if float(parameter.detach().abs().max()) < HIDING:
            if parameter.ndim <= 1:
                values = 0.1 + 0.2 * torch.rand(parameter.shape)
            else:
                values = torch.randn(parameter.shape) / parameter[0].numel() ** 0.5
            values = values.to(parameter.device, parameter.dtype)
            drawn[id(parameter)] = nn.Parameter(values, requires_grad=False)
    return drawn


def _difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> str | None:
    """The first tensor that differs, in words; None where they agree."""
    for path, wanted in expected.items():
        tensor = found.get(path)
        where = f"{path}: " if path else ""
        if tensor is None:
            return f"{where}missing"
        if tensor.shape != wanted.shape:
            return f"{where}{tuple(tensor.shape)} in place of {tuple(wanted.shape)}"
        if not wanted.is_floating_point() or wanted.numel() == 0:
            continue
        scale = max(float(wanted.abs().max()), torch.finfo(wanted.dtype).tiny)
        difference = float((tensor - wanted).abs().max()) / scale
        if not difference <= TOLERANCE.get(wanted.dtype, 0.05):
            return f"{where}off by {difference:.2g} of its largest value"
    return None


def _saw(outputs: list[Any]) -> bool:
    """Whether something other than zero was compared."""
    return any(bool(t.any()) for output in outputs for _, t in tensors_in(output))


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else repr(error)
