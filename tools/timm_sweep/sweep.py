"""The checks of `inspection` over the smallest model of every timm module, as a table."""

from __future__ import annotations

import json
import logging
import multiprocessing
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import timm
import torch
from tqdm import tqdm

from aa_plugins.report.table import Table
from aa_plugins.timm.models import TIMM_MODULES
from timm_sweep import inspection

LIMIT = 600.0
# Once for all processes, where they are installed.
SLOW_IMPORTS = ["torch._dynamo", "onnxscript", "onnxruntime"]
VERSIONS = {"timm": timm.__version__, "torch": torch.__version__}
Row = dict[str, Any]
COST = (
    "module", "smallest model", "parameters", "sites", "left alone", "+ parameters", "+ MACs",
    "strides of features",
)  # fmt: skip
EQUALITY = ("module", "output", "odd maps", "features", "rolled", "blurred", "trains")
BEFORE = (
    "module", "sites, pre", "+ MACs, pre", "+ MACs, blur, pre", "output, pre", "blurred, pre",
    "trains, pre",
)  # fmt: skip
COMPILERS = ("module", "rounding", "compile", "export", "ONNX")
NOT_MEASURED = "not measured"
TEMPLATE = """\
# timm models

Made by `python tools/timm_sweep` from the records in `docs/results/timm.jsonl`
(measured with timm {timm}, torch {torch}): the smallest model (by parameters) of each of the
{modules} modules, of which {converted} lower their resolution at places that `antialias` converts.
Configuration: `AAConfig(init="identity", stem=True, pad_mode="replicate")`; float32, eval mode, on
one CPU thread.

The comparison can see: every norm, bias, scale and constant is drawn anew, so that {constant} of
the models' parameters are constant, and the batch norms are calibrated on random images, so that
{uncalibrated} of {norms} have statistics of their start.

## What is converted, and what it costs

| column | meaning |
| --- | --- |
| sites, left alone | places that got a filter; places that didn't (`antialias(…, dry_run=True)` says why) |
| + parameters, + MACs | what the filters add (groups=8, 3×3), the convolutions that became dense included; at the default size |
| strides of features | of the NCHW maps that `aa_<name>` gives with `features_only=True`, their sizes and channels checked |

{cost}

## It computes what it did, and trains

| column | meaning |
| --- | --- |
| output, odd maps, features | largest absolute difference to the plain model over the largest absolute value: of the output at the default size, of the output at 113×127 or 116×132 pixels, of the worst stage feature (`features_only=True`, at that size where the model takes it) |
| rolled, blurred | the same measure, where the input is rolled by a pixel (of the output, or of a stage feature where that moves more), or `filter="blur"` (of the output) |
| trains | filters of which, in two steps of Adam, every parameter had a finite gradient and moved |

{equality}

## With filters before strided convolutions

`placement="pre"` (torch {pre_torch}): strided convolutions keep their strides and read a filtered map.
Same measures, of an image of 113×127 or 116×132 pixels, or of the model's own size; + MACs there, with
the predicted filter and with `filter="blur"`.

{before}

## Compilers and exporters

| column | meaning |
| --- | --- |
| rounding | difference between float32 and float64: a network that amplifies rounding errors can't agree better with anything; filters' gates drawn from [0.2, 0.8], at the smaller size where the model takes it |
| compile, export, ONNX | difference after `torch.compile(fullgraph=True)` (backend "eager": no graph break), `torch.export`, and ONNX (opset {opset}, `dynamo=True, optimize=False`) run by onnxruntime; the same filters and size |

{compilers}

## Nothing to convert

{plain}

## Checks that failed

{errors}
"""  # noqa: E501


def sweep(
    records: Path, checks: Iterable[str], modules: Iterable[str] = (), limit: float = LIMIT
) -> dict[str, Row]:
    """Run `checks` on every module's smallest model; what `records` holds already is kept.

    Each module has a process of its own, so that a crash or a hang costs one check. A record of
    another version of timm is made anew.

    Args:
        records: a file with a JSON line for each module, written after each check.
        checks: names from `CHECKS`; "sites" always comes first.
        modules: timm's module names; all unless given.
        limit: of a check, in seconds.

    Returns:
        A row for each module: columns of the checks, and "<check>_error" where one failed.
    """
    rows = read(records)
    checks = ["sites", *(check for check in checks if check != "sites")]
    for module in (progress := tqdm(list(modules) or TIMM_MODULES)):
        if rows.get(module, {}).get("timm") != timm.__version__:
            rows[module] = {"module": module, **VERSIONS, "done": []}
        row = rows[module]
        while todo := [check for check in checks if check not in row["done"]]:
            progress.set_description(f"{module}: {todo[0]}")
            for check, outcome in _in_a_process(row, todo, limit):
                row.update(outcome)
                row["done"].append(check)
                write(records, rows)
    return rows


def read(records: Path) -> dict[str, Row]:
    """The rows of a file of records by module; none where there is no file."""
    lines = records.read_text().splitlines() if records.exists() else []
    return {row["module"]: row for row in map(json.loads, lines)}


def write(records: Path, rows: Mapping[str, Row]) -> None:
    """A line for each row, in the order of modules; an interruption leaves the old file."""
    records.parent.mkdir(parents=True, exist_ok=True)
    new = records.with_suffix(".new")
    new.write_text("".join(f"{json.dumps(row)}\n" for _, row in sorted(rows.items())))
    new.replace(records)


def _in_a_process(row: Row, checks: list[str], limit: float) -> Iterator[tuple[str, Row]]:
    """Outcomes of `checks` from one process, until it is done, dies, or hangs in one of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([inspection.__name__, *SLOW_IMPORTS])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, dict(row), checks), daemon=True)
    process.start()
    theirs.close()
    try:
        for check in checks:
            if not ours.poll(limit):
                yield check, {f"{check}_error": f"no result within {limit:.0f} s"}
                return
            try:
                yield ours.recv()
            except EOFError:
                process.join()
                yield check, {f"{check}_error": f"its process died: {process.exitcode}"}
                return
        process.join(5)
    finally:
        process.kill()
        process.join()


def _work(pipe: Connection, row: Row, checks: list[str]) -> None:
    """Send (check, its columns) for every check; without sites there is nothing to check."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for check in checks:
        outcome = {}
        if check == "sites" or row.get("converted"):
            try:
                name = row.get("model") or inspection.smallest_model(row["module"])
                outcome = inspection.CHECKS[check](name)
            except Exception as error:  # any error of any network is a result, too
                outcome = {f"{check}_error": inspection.summary(error)}
        row.update(outcome)
        pipe.send((check, outcome))
    pipe.close()


def table(rows: Mapping[str, Row], columns: Sequence[str]) -> Table:
    """A table of `docs/timm.md`."""
    found = [_cells(module, row) for module, row in sorted(rows.items())]
    return Table(tuple(columns), tuple(tuple(cells[c] for c in columns) for cells in found))


def document(rows: Mapping[str, Row]) -> str:
    """`docs/timm.md`: the table, how it was made, and the reasons of what was left alone."""
    converted = {m: row for m, row in rows.items() if row.get("converted")}
    plain = {m: row for m, row in rows.items() if m not in converted}
    lines = [f"| {m} | {row['model']} | {_reasons(row)} |" for m, row in sorted(plain.items())]
    errors = [
        f"| {module} | {key[: -len('_error')]} | {_escaped(row[key])} | {_of_plain(row, key)} |"
        for module, row in sorted(rows.items())
        for key in sorted(row)
        if key.endswith("_error")
    ]
    header = ["| module | check | error | plain model |", "| --- | --- | --- | --- |"]
    return TEMPLATE.format(
        **{name: _values(rows, name) for name in VERSIONS},
        modules=len(rows),
        converted=len(converted),
        constant=_total(rows, "constant_parameters"),
        uncalibrated=_total(rows, "uncalibrated_batch_norms"),
        norms=_total(rows, "batch_norms"),
        opset=_values(rows, "opset"),
        pre_torch=_values(rows, "pre_torch"),
        cost=table(converted, COST).markdown(),
        equality=table(converted, EQUALITY).markdown(),
        before=table(converted, BEFORE).markdown(),
        compilers=table(converted, COMPILERS).markdown(),
        plain="\n".join(["| module | smallest model | why |", "| --- | --- | --- |", *lines]),
        errors="\n".join([*header, *errors]) if errors else "None.",
    )


def _values(rows: Mapping[str, Row], column: str) -> str:
    return ", ".join(sorted({str(row[column]) for row in rows.values() if row.get(column)}))


def _total(rows: Mapping[str, Row], column: str) -> str:
    return str(sum(row.get(column, 0) for row in rows.values()) or "none")


def _of_plain(row: Row, error: str) -> str:
    return "fails too" if f"{error}_of_plain" in row else ""


def _reasons(row: Row) -> str:
    return _escaped("; ".join(row.get("reasons", [])) or row.get("sites_error", ""))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _cells(module: str, row: Row) -> dict[str, str]:
    """What all tables say of a module, by column."""
    cells = {
        "module": module,
        "smallest model": row["model"],
        "parameters": f"{row['parameters'] / 1e6:.2f} M",
        "sites": str(row["converted"]),
        "left alone": str(row["denied"]),
        "+ parameters": f"{row['extra_parameters'] / row['parameters']:+.0%}",
        "+ MACs": f"{row['extra_macs'] / row['macs']:+.0%}" if "macs" in row else NOT_MEASURED,
        "strides of features": _strides(row),
        "output": _number(row, "identity", "difference"),
        "odd maps": _number(row, "identity", "odd_difference"),
        "features": _number(row, "features", "feature_difference"),
        "rolled": _percent(max(row.get("roll", 0), row.get("feature_roll", 0))),
        "blurred": _percent(row.get("blur", 0)),
        "trains": _trained(row, "training"),
        "sites, pre": str(row.get("pre_converted", NOT_MEASURED)),
        "+ MACs, pre": _share(row, "pre_macs"),
        "+ MACs, blur, pre": _share(row, "pre_blur_macs"),
        "output, pre": _number(row, "placement", "pre_difference"),
        "blurred, pre": _percent(row.get("pre_blur", 0)),
        "trains, pre": _trained(row, "placement", "pre_"),
    }
    for check in ("rounding", "compile", "export", "onnx"):
        fails_too = f"{check}_error_of_plain" in row
        said = "plain model fails too" if fails_too else _number(row, check, check)
        cells[check if check != "onnx" else "ONNX"] = said
    return cells


def _strides(row: Row) -> str:
    if "features_error" in row or row.get("maps_as_announced") is False:
        return "no"
    return ", ".join(map(str, row["strides"])) if "maps_as_announced" in row else NOT_MEASURED


def _number(row: Row, check: str, column: str) -> str:
    if f"{check}_error" in row:
        return "no"
    value = row.get(column)
    if value is False:
        return "fixed size"
    return NOT_MEASURED if value is None else f"{value:.0e}" if value else "0"


def _percent(value: float) -> str:
    if value >= 10:
        return "> 1000 %"
    return f"{value:.1%}" if value else NOT_MEASURED


def _share(row: Row, column: str) -> str:
    return f"{row[column]:+.1%}" if column in row else NOT_MEASURED


def _trained(row: Row, check: str, prefix: str = "") -> str:
    if f"{check}_error" in row:
        return "no"
    if f"{prefix}moved_filters" not in row:
        return NOT_MEASURED
    count = min(row[f"{prefix}moved_filters"], row[f"{prefix}finite_filters"])
    return f"{count} of {row[f'{prefix}converted']}"
