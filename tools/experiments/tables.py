"""Tables of experiments in Markdown files, between markers, so that one command renews them.

A table stands between `<!-- table: EXPERIMENT/KIND -->` and `<!-- end -->`. What
`python tools/benchmark` measured goes by the name "benchmark".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from aa_plugins.report.plots import branch_table
from aa_plugins.report.table import ABSENT, Table, difference_table, label, result_table, units
from aa_plugins.robustness.tasks import corruption_errors
from benchmark import table as benchmark
from experiments import flicker
from experiments.plan import load
from experiments.results import Results
from experiments.tasks import numbers

MARKED = re.compile(r"(<!-- table: ([\w-]+)/([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
BENCHMARK = "benchmark"
EDGES = tuple(f"boundary/{band}" for band in (1, 3, 5, 15))
CONTROLS = tuple(f"controls/{role}" for role in ("noise_floor", "same_phase", "near", "half"))
BESIDE = ("class_mean", "worst", "divergence")


def renew(text: str, declarations: Path, folder: Path) -> str:
    """The text with every marked table made anew.

    Args:
        declarations: folder of the experiments' declarations.
        folder: of the results.

    Raises:
        ValueError: for a kind of table that doesn't exist, or an experiment without records.
    """
    read: dict[str, Results] = {}

    def table(match: re.Match) -> str:
        begin, name, kind, end = match.groups()
        if (name, kind) == ("flicker", "correlations"):
            return f"{begin}\n{flicker.table(folder).markdown()}\n\n{end}"
        kinds = benchmark.KINDS if name == BENCHMARK else {**KINDS, **ANALYSES}
        if kind not in kinds:
            raise ValueError(f"no table {name}/{kind}: choose one of {', '.join(kinds)}")
        if name == BENCHMARK:
            return f"{begin}\n{kinds[kind](benchmark.measured(folder / BENCHMARK))}\n\n{end}"
        if name not in read:
            read[name] = Results.read(load(declarations / f"{name}.yaml"), folder)
        if not read[name].records:
            raise ValueError(f"no records of {name} in {folder}: run the experiment first")
        return f"{begin}\n{kinds[kind](read[name]).markdown()}\n\n{end}"

    return MARKED.sub(table, text)


def headline(results: Results) -> Table:
    """The experiment's columns, means over seeds; where predictions are averaged over phases, what
    each costs, too."""
    table = _summaries(results, results.experiment.columns)
    declared = results.experiment.variants
    if not any("phases" in fields for fields in declared.values()):
        return table
    costs = [declared[name].get("phases", 1) for name in results.variants()]
    rows = tuple((*row, str(cost)) for row, cost in zip(table.rows, costs, strict=True))
    return replace(table, header=(*table.header, "forward passes"), rows=rows)


def paired(results: Results) -> Table:
    """Each variant less every one before it, the seeds that both have."""
    names = results.variants()
    return _differences(
        results, [(later, one) for place, later in enumerate(names) for one in names[:place]]
    )


def effects(results: Results) -> Table:
    """Each variant less the first one, the network without filters, the seeds that both have."""
    first, *others = results.variants()
    return _differences(results, [(other, first) for other in others])


def _differences(results: Results, pairs: Sequence[tuple[str, str]]) -> Table:
    columns = results.experiment.columns
    trees = {
        f"{later} - {earlier} ({len(found)})": results.difference(later, earlier, columns)
        for later, earlier in pairs
        if (found := results.seeds(later, earlier))
    }
    return difference_table(trees, columns)


def seeds(results: Results) -> Table:
    """What each single run measured."""
    columns = results.experiment.columns
    seeds = sorted({seed for records in results.records.values() for seed in records})
    header = ("", *(f"{label(column)}, by seed" for column in columns))
    rows = []
    for variant in results.variants():
        values = [results.values(variant, column) for column in columns]
        rows.append((variant, *(_listed([v.get(seed) for seed in seeds]) for v in values)))
    return Table(header, tuple(rows))


def gaps(results: Results) -> Table:
    """Paired differences of single seeds."""
    columns = results.experiment.columns
    rows, names = [], results.variants()
    for position, later in enumerate(names):
        for earlier in names[:position]:
            found = [results.gaps(later, earlier, column) for column in columns]
            rows.append((f"{later} - {earlier}", *(_listed(g.values(), "+") for g in found)))
    return Table(("seed by seed", *map(label, columns)), tuple(rows))


def controls(results: Results) -> Table:
    """Agreement of the control pairs."""
    return _summaries(results, CONTROLS)


def boundary(results: Results) -> Table:
    """Agreement near boundaries."""
    return _summaries(results, EDGES)


def beside(results: Results) -> Table:
    """Further measures of consistency."""
    return _summaries(results, BESIDE)


def cost(results: Results) -> Table:
    """Size of the networks, and what training took."""
    rows = []
    for variant in results.variants():
        found = list(results.records[variant].values())
        size, trained = found[0]["size"], [record["training"] for record in found]
        whole = [training for training in trained if not training.get("resumed")]
        minutes = [training["cpu_seconds"] / 60 for training in whole if training["cpu_seconds"]]
        memory = [training["peak_memory_mib"] for training in whole if training["peak_memory_mib"]]
        macs = size.get("macs") or size.get("backbone_macs")
        rows.append(
            (
                variant,
                f"{size['parameters'] / 1e6:.3f}",
                f"{macs / 1e9:.3f}",
                f"{min(minutes):.1f}" if minutes else ABSENT,
                f"{max(memory):.0f}" if memory else ABSENT,
            )
        )
    header = ("", "parameters, M", "MACs, G", "training, CPU min", "peak memory, MiB")
    return Table(header, tuple(rows))


# Measures of `watch`: title, factor and format.
FILTER_MEASURES = {
    "departure": ("departure from the fixed blur", 100, ".1f"),
    "spread": ("spread between places", 100, ".1f"),
    "follows_detail": ("follows detail, px²", 1, "+.2f"),
    "gain": ("gain", 1, ".3f"),
    "passes": ("passes of what aliases", 1, ".3f"),
}


def filters(results: Results) -> Table:
    """What trained filters do: means over sites and seeds of the measures of `watch`."""
    rows = []
    every = (r for runs in results.records.values() for r in runs.values())
    measured = {name for r in every for site in r["filters"].values() for name in site}
    names = [name for name in FILTER_MEASURES if name in measured]
    for variant in results.variants():
        sites = [site for r in results.records[variant].values() for site in r["filters"].values()]
        cells = []
        for name in names:
            _, scale, form = FILTER_MEASURES[name]
            known = [scale * site[name] for site in sites if name in site]
            cells.append(format(sum(known) / len(known), form) if known else ABSENT)
        rows.append((variant, *cells))
    return Table(("", *(FILTER_MEASURES[name][0] for name in names)), tuple(rows))


def host(results: Results) -> Table:
    """What the host measured itself on whole images, by seed."""
    names = ("bbox/AP", "bbox/AP50", "segm/AP", "segm/AP50")
    rows = []
    for variant in results.variants():
        found = [record["host"] for _, record in sorted(results.records[variant].items())]
        rows.append((variant, *(_listed([one.get(name) for one in found]) for name in names)))
    return Table(("whole images, by seed", *map(label, names)), tuple(rows))


def verdicts(results: Results) -> Table:
    """The claims, and what the records say."""
    rows = [
        (claim.text, label(claim.metric), *results.verdict(claim).split(": ", 1))
        for claim in results.experiment.claims
    ]
    return Table(("claim", "by", "verdict", "on"), tuple(rows))


def runs(results: Results) -> Table:
    """Where each record comes from."""
    rows = []
    for variant in results.variants():
        for seed, record in sorted(results.records[variant].items()):
            environment = record["environment"]
            where = environment.get("gpu") or f"CPU, {environment['threads']} thread"
            torch = f"torch {environment['torch']}"
            options = " ".join(record["options"]) or ABSENT
            row = (variant, str(seed), record["commit"], record["date"], where, torch, options)
            rows.append(row)
    return Table(("", "seed", "commit", "date", "on", "with", "options"), tuple(rows))


def right(results: Results) -> Table:
    """Of an analysis: how right predictions are, a row a corruption, band or radius."""
    return _curve(results, 0)


def consistent(results: Results) -> Table:
    """Of an analysis: how consistent they are, likewise."""
    return _curve(results, 1)


def errors(results: Results) -> Table:
    """Errors under corruption over those of the first variant, of the first seed."""
    kind = results.experiment.task.split("/")[0]
    first, *others = results.variants()
    seed = results.seeds(first, *others)[0]
    reference = results.images[first][seed]
    trees = {
        name: corruption_errors(kind, results.images[name][seed], reference) for name in others
    }
    return result_table(trees, ("mCE", "relative_mCE"))


KINDS: dict[str, Callable[[Results], Table]] = {
    "headline": headline,
    "paired": paired,
    "effects": effects,
    "seeds": seeds,
    "gaps": gaps,
    "controls": controls,
    "boundary": boundary,
    "beside": beside,
    "cost": cost,
    "filters": filters,
    "host": host,
    "verdicts": verdicts,
    "runs": runs,
}
ANALYSES: dict[str, Callable[[Results], Table]] = {
    "right": right,
    "consistent": consistent,
    "errors": errors,
}


def _curve(results: Results, number: int) -> Table:
    """A row a level, a column a variant, of a number among the columns."""
    name = numbers(results.experiment.columns)[number]
    trees = {variant: results.summary(variant, [name]) for variant in results.variants()}
    entries = [entry for tree in trees.values() for entry in tree[name].values()]
    return replace(branch_table(trees, name), caption=units(entries))


def _summaries(results: Results, metrics: tuple[str, ...]) -> Table:
    trees = {
        f"{variant} ({len(results.seeds(variant))})": results.summary(variant, metrics)
        for variant in results.variants()
    }
    return result_table(trees, metrics)


def _listed(values, sign: str = "") -> str:
    return ", ".join(ABSENT if value is None else f"{value:{sign}.2f}" for value in values)
