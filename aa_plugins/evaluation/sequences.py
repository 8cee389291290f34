"""Which sequence an image belongs to, and where in it, by its name.

Neighbouring frames depend on one another, so intervals have to know of them
(:mod:`aa_plugins.evaluation.resampling`). Names say it in many data sets; a rule is a regular
expression with the groups ``sequence`` and ``position``, searched in an image's id.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

logger = logging.getLogger(__name__)

RULES = {
    # 0016E5_07959, Seq05VD_f00030: one drive each
    "camvid": r"(?P<sequence>[0-9A-Za-z]+)_f?(?P<position>\d+)",
    # frankfurt_000001_005410: a recording of a city, and the frame
    "cityscapes": r"(?P<sequence>[a-z-]+_\d{6})_(?P<position>\d{6})",
    # clips/walk/frame_0012.jpg: a folder a clip, the last number in a name is the frame
    "video": r"(?P<sequence>[^/]+(?:/[^/]+)*)/[^/]*?(?P<position>\d+)[^/\d]*$",
}


def placed(records: Iterable[dict], rule: str | None) -> list[dict]:
    """Records with their ``sequence`` and ``position``; as they are without a rule.

    Args:
        rule: a name in `RULES`, or a regular expression.

    Raises:
        ValueError: for an expression that can't be used, or an id that it doesn't match.
    """
    if rule is None:
        return list(records)
    pattern = compiled(rule)
    return [{**record, **place_of(str(record["image_id"]), pattern)} for record in records]


def fitting(rule: str | None, ids: Iterable[str | int]) -> str | None:
    """A data set's rule; none, with a warning, where no image is named by it, as with other images
    in the same layout.

    Raises:
        ValueError: as :func:`compiled`, and where some images are named by it and others aren't.
    """
    if rule is None:
        return None
    pattern, ids = compiled(rule), [str(image_id) for image_id in ids]
    named = [bool(pattern.search(image_id)) for image_id in ids]
    if ids and not any(named):
        logger.warning(
            f"images such as {ids[0]!r} aren't named by the rule {rule!r} for sequences: intervals "
            "take them to be independent"
        )
        return None
    if not all(named):
        place_of(ids[named.index(False)], pattern)
    return rule


def place_of(image_id: str, pattern: re.Pattern[str]) -> dict[str, str | int]:
    """``sequence`` and ``position`` of an image.

    Raises:
        ValueError: where its id doesn't say.
    """
    found = pattern.search(image_id)
    if found is None:
        raise ValueError(
            f"image {image_id!r} doesn't match {pattern.pattern}, the rule for sequences: give "
            "another rule, or none where images are unordered"
        )
    return {"sequence": found["sequence"], "position": int(found["position"])}


def compiled(rule: str) -> re.Pattern[str]:
    """The expression of a rule.

    Raises:
        ValueError: for one without the groups ``sequence`` and ``position``.
    """
    try:
        pattern = re.compile(RULES.get(rule, rule))
    except re.error as error:
        raise ValueError(f"sequences={rule!r}: {error}; or use {', '.join(RULES)}") from error
    if {"sequence", "position"} - set(pattern.groupindex):
        raise ValueError(
            f"sequences={rule!r} has no groups (?P<sequence>…) and (?P<position>…): add them, or "
            f"use {', '.join(RULES)}"
        )
    return pattern
