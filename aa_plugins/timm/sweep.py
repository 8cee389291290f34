"""The checks of `inspection` over the smallest model of every timm module, as a table."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from timm.models import list_modules
from tqdm import tqdm

from aa_plugins.report.table import Table
from aa_plugins.timm.inspection import CHECKS, smallest_model

Row = dict[str, Any]
COLUMNS = (
    "module", "smallest model", "parameters", "sites", "left alone", "output", "odd maps",
    "features", "rolled", "blurred", "trains", "+ parameters", "+ MACs", "compile", "export",
    "ONNX", "features_only",
)  # fmt: skip
NOT_MEASURED = "not measured"
TEMPLATE = """\
# timm models

Made by `python tools/inspect_model.py --all` with timm {version}: the smallest model (by
parameters) of each of the {modules} modules, of which {converted} lower their resolution at places
that `antialias` converts. Configuration: `AAConfig(init="identity", stem=True,
pad_mode="replicate")`; float32, eval mode, weights drawn at random with no parameter left at a
constant start, batch norms calibrated, on one CPU thread.

| column | meaning |
| --- | --- |
| sites, left alone | places that got a filter; places that didn't (`antialias(…, dry_run=True)` says why) |
| output, odd maps, features | largest absolute difference to the plain model over the largest absolute value: of the output at the default size, of the output at 113×127 or 116×132 pixels, of the worst stage feature (`features_only=True`, at that size where the model takes it) |
| rolled, blurred | the same measure, where the input is rolled by a pixel, or `filter="blur"`: the comparison can see |
| trains | filters of which, in two steps of Adam, every parameter had a finite gradient and moved |
| + parameters, + MACs | what the filters add (groups=8, 3×3), the convolutions that became dense included; at the default size |
| compile, export, ONNX | difference after `torch.compile(fullgraph=True)` (backend "eager": no graph break), `torch.export`, and ONNX run by onnxruntime, with gates drawn from [0.2, 0.8] |

{table}

## Nothing to convert

{plain}

## Checks that failed

{errors}
"""  # noqa: E501


def sweep(results: Path, checks: Iterable[str], modules: Iterable[str] = ()) -> dict[str, Row]:
    """Run `checks` on every module's smallest model; what `results` holds already is kept.

    Args:
        results: a JSON file, written after each check.
        checks: names from `CHECKS`; "sites" always comes first.
        modules: timm's module names; all unless given.

    Returns:
        A row for each module: columns of the checks, and "<check>_error" where one failed.
    """
    rows: dict[str, Row] = json.loads(results.read_text()) if results.exists() else {}
    progress = tqdm(list(modules) or list_modules())
    for module in progress:
        row = rows.setdefault(module, {"done": []})
        name = row.get("model") or smallest_model(module)
        for check in ("sites", *(c for c in checks if c != "sites")):
            if check in row["done"] or (check != "sites" and not row.get("converted")):
                continue
            progress.set_description(f"{name}: {check}")
            row.update(_outcome(check, name))
            row["done"].append(check)
            results.parent.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps(rows, indent=1))
            gc.collect()
    return rows


def _outcome(check: str, name: str) -> Row:
    """The columns of a check, or its error, which is a result too."""
    try:
        return CHECKS[check](name)
    except Exception as error:  # any error of any network
        lines = str(error).splitlines() or [""]
        return {f"{check}_error": f"{type(error).__name__}: {lines[0]}"[:200]}


def table(rows: Mapping[str, Row]) -> Table:
    """The table of `docs/timm.md`."""
    return Table(COLUMNS, tuple(tuple(_cells(m, row)) for m, row in sorted(rows.items())))


def document(rows: Mapping[str, Row], version: str) -> str:
    """`docs/timm.md`: the table, how it was made, and the reasons of what was left alone."""
    converted = {m: row for m, row in rows.items() if row.get("converted")}
    plain = {m: row for m, row in rows.items() if m not in converted}
    lines = [f"| {m} | {row['model']} | {_reasons(row)} |" for m, row in sorted(plain.items())]
    errors = [
        f"| {module} | {key.removesuffix('_error')} | {_escaped(row[key])} |"
        for module, row in sorted(rows.items())
        for key in sorted(row)
        if key.endswith("_error")
    ]
    return TEMPLATE.format(
        version=version,
        modules=len(rows),
        converted=len(converted),
        table=table(converted).markdown(),
        plain="\n".join(["| module | smallest model | why |", "| --- | --- | --- |", *lines]),
        errors="\n".join(["| module | check | error |", "| --- | --- | --- |", *errors]),
    )


def _reasons(row: Row) -> str:
    return _escaped("; ".join(row.get("reasons", [])) or row.get("sites_error", ""))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _cells(module: str, row: Row) -> Iterator[str]:
    yield module
    yield row["model"]
    yield f"{row['parameters'] / 1e6:.2f} M"
    yield str(row["converted"])
    yield str(row["denied"])
    yield _number(row, "identity", "difference")
    yield _number(row, "identity", "odd_difference")
    yield _number(row, "features", "feature_difference")
    yield _percent(max(row.get("roll", 0), row.get("feature_roll", 0)))
    yield _percent(row.get("blur", 0))
    yield _trained(row)
    yield f"{row['extra_parameters'] / row['parameters']:+.0%}"
    yield f"{row['extra_macs'] / row['macs']:+.0%}" if "macs" in row else NOT_MEASURED
    yield _number(row, "compile", "compile")
    yield _number(row, "export", "export")
    yield "no" if "export_error" in row else _number(row, "onnx", "onnx")
    features = {"features_only": True, "features_error": False}
    yield next(("yes" if ok else "no" for key, ok in features.items() if key in row), NOT_MEASURED)


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


def _trained(row: Row) -> str:
    if "training_error" in row:
        return "no"
    if "moved_filters" not in row:
        return NOT_MEASURED
    return f"{min(row['moved_filters'], row['finite_filters'])} of {row['converted']}"
