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


def _cells(module: str, row: Row) -> Iterator[str]:
    yield module
    yield row["model"]
    yield f"{row['parameters'] / 1e6:.2f} M"
    yield str(row["converted"])
    yield str(row["denied"])
    if not row["converted"]:
        yield from ["–"] * 12
        return
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
    return f"{min(value, 9.99):.1%}" if value else NOT_MEASURED


def _trained(row: Row) -> str:
    if "training_error" in row:
        return "no"
    if "moved_filters" not in row:
        return NOT_MEASURED
    return f"{min(row['moved_filters'], row['finite_filters'])} of {row['converted']}"
