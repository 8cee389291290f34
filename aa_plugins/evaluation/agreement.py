"""What all tasks share: the head of a record, the curve over shifts and the controls."""

from __future__ import annotations

from aa_plugins.evaluation.bootstrap import Mean
from aa_plugins.evaluation.protocol import Protocol
from aa_plugins.evaluation.views import ViewPlan

Agreements = list[list[float | None]]  # for each image, for each pair: in [0, 1], None if undefined


def record_head(plan: ViewPlan, protocol: Protocol) -> dict:
    """What every record says of its image, its pairs and where they come from."""
    return {
        "image_id": plan.image_id,
        "protocol": protocol.fingerprint(),
        "margin": plan.margin,
        "shifts": [list(pair.shift) for pair in plan.pairs],
        "roles": [pair.role for pair in plan.pairs],
    }


def in_mean(record: dict) -> list[int]:
    """The pairs of an image that the mean is taken over."""
    return [i for i, role in enumerate(record["roles"]) if role == "mean"]


def by_shift(records: list[dict], agreements: Agreements) -> dict[str, Mean]:
    """Agreement at each shift ``"dy,dx"``, controls left out; where images have different (random)
    shifts, at each distance max(\\|dy\\|, \\|dx\\|). In percent."""
    listed = all(record["shifts"] == records[0]["shifts"] for record in records)

    def name(shift: list) -> str:
        return "{:g},{:g}".format(*shift) if listed else f"{max(map(abs, shift)):g}"

    curve = []
    for record, agreement in zip(records, agreements, strict=True):
        found: dict[str, list] = {}
        for shift, role, value in zip(record["shifts"], record["roles"], agreement, strict=True):
            if role in ("mean", "multiple"):
                found.setdefault(name(shift), []).append(value)
        curve.append({key: mean(values) for key, values in found.items()})
    keys = dict.fromkeys(key for found in curve for key in found)
    keys = keys if listed else sorted(keys, key=float)
    return {key: Mean([found.get(key) for found in curve], 100) for key in keys}


def controls(records: list[dict], agreements: Agreements, borders: bool = True) -> dict:
    """Agreement of the control pairs and the aliasing-specific loss, in percent.

    The loss is the agreement at shift S less the mean over the pairs at S ± 1 and S ± S/2: at S the
    sampling phase is the same, so what disagrees there is border and context. All of these pairs
    keep the same margin from borders, see :mod:`aa_plugins.evaluation.plan`; images that are too
    small for the margin have no loss.

    Args:
        borders: predictions have a place in the view, so that borders matter; not so where they
            are of the view as a whole.
    """

    def by_role(*roles: str) -> list[float | None]:
        return [
            mean([v for v, role in zip(agreement, record["roles"], strict=True) if role in roles])
            for record, agreement in zip(records, agreements, strict=True)
        ]

    roles = ("noise_floor", "same_phase", "near", "half")
    if not any(role in roles for record in records for role in record["roles"]):
        return {}
    kept = [not borders or record.get("margin", 0) is not None for record in records]
    loss = [
        same - other if inside and same is not None and other is not None else None
        for inside, same, other in zip(
            kept, by_role("same_phase"), by_role("near", "half"), strict=True
        )
    ]
    found = {role: Mean(by_role(role), 100) for role in roles}
    return {"controls": found, "aliasing_loss": Mean(loss, 100)}


def mean(values: list[float | None]) -> float | None:
    """The mean of those values that are defined; None if none is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
