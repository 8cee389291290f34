"""Images and label maps that can't be measured, told by their files before a run starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, ConcatDataset
from mmseg.registry import TRANSFORMS
from PIL import ExifTags, Image

from aa_plugins.evaluation.bad_images import BadImage
from aa_plugins.evaluation.identity import image_ids

# The last bytes of a whole file: a decoder of OpenCV fills what is cut off with grey, silently.
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
READ_BY_PILLOW = (".jpg", ".jpeg", ".png", ".bmp")
COLOURS = ("RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")
SIDEWAYS = (5, 6, 7, 8)

Dataset = BaseDataset | ConcatDataset


def fault_of(image: str, labels: str | None) -> str | None:
    """Why an image and its label map can't be used, None where they can.

    Reads their headers and last bytes, which takes a fraction of a millisecond. What lies on a
    server or is of another format than these isn't looked at.

    Args:
        image, labels: paths.
    """
    size, turned = None, 1
    for path, kind in ((image, "image"), (labels, "label map")):
        if path is None or "://" in path or Path(path).suffix.lower() not in READ_BY_PILLOW:
            return None
        if not Path(path).is_file():
            return f"{path}: there is no such {kind}"
        try:
            with Image.open(path) as opened:
                if not _ends(path, ENDS.get(opened.format, b"")):
                    return f"{path} is cut off"
                found, mode = opened.size, opened.mode
                exif = opened.getexif() if "exif" in opened.info else {}
                orientation = exif.get(ExifTags.Base.Orientation, 1)
        except Exception as error:  # a broken header raises all kinds
            return f"{path} can't be read as an image ({' '.join(str(error).split())})"
        if kind == "image":
            turned = orientation
            size = found[::-1] if turned in SIDEWAYS else found
        elif mode in COLOURS:
            return f"{path} is a {mode} picture: labels are class numbers in one channel"
        elif found != size:
            tag = f", turned by its EXIF orientation {turned}," if turned != 1 else ""
            return (
                f"{path} is {found[1]}x{found[0]}, its image{tag} {size[1]}x{size[0]}: give labels "
                "of the image's size"
            )
        elif turned != 1 and (found == found[::-1] or turned not in SIDEWAYS):
            return (
                f"{image} is turned by its EXIF orientation {turned}, and whether its labels are "
                "can't be told: save both without the tag"
            )
    return None


@TRANSFORMS.register_module()
class CheckFiles(BaseTransform):
    """Raise where an image or its label map can't be used; to stand first in a pipeline."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        if fault := fault_of(results["img_path"], results.get("seg_map_path")):
            raise ValueError(f"{fault}: mend the file, or take it out of the data set")
        return results


def ids_of(dataset: Dataset) -> dict[str, str]:
    """The id of every image of a data set by its path, in order: its path below the data root.

    Raises:
        ValueError: an image is listed twice.
    """
    paths = [dataset.get_data_info(index)["img_path"] for index in range(len(dataset))]
    roots = {getattr(part, "data_root", None) for part in parts_of(dataset)}
    root = roots.pop() if len(roots) == 1 else None
    if root and all(Path(path).absolute().is_relative_to(Path(root).absolute()) for path in paths):
        return dict(zip(paths, image_ids(paths, root)))
    return dict(zip(paths, image_ids(paths)))


def files_of(dataset: Dataset) -> list[str]:
    """The paths of a data set's images and label maps, in order."""
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    found = (info.get(key) for info in infos for key in ("img_path", "seg_map_path"))
    return [path for path in found if path is not None]


def check_files(dataset: Dataset) -> None:
    """Take images that can't be used out of a data set; what is left, and what not, is noted on it.

    Raises:
        ValueError: nothing is left, or an image is listed twice.
    """
    ids, bad = ids_of(dataset), []
    for part in parts_of(dataset):
        labelled = any(
            type(step).__name__ == "LoadAnnotations" for step in part.pipeline.transforms
        )
        good = []
        for index in range(len(part)):
            info = part.get_data_info(index)
            path = info["img_path"]
            fault = fault_of(path, info.get("seg_map_path") if labelled else None)
            if fault is None:
                good.append(index)
            else:
                bad.append(BadImage(ids[path], fault))
        if len(good) < len(part):
            part.get_subset_(good)
    if not ids or len(bad) == len(ids):
        reason = f"; the first: {bad[0].reason}" if bad else ""
        raise ValueError(f"none of {len(ids)} images can be used{reason}: look at data_root")
    if isinstance(dataset, ConcatDataset):
        dataset.cumulative_sizes = dataset.cumsum(dataset.datasets)
    dataset.checked = ids, bad


def parts_of(dataset: Dataset) -> Iterator[BaseDataset]:
    """The data sets that are concatenated, or the one."""
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from parts_of(part)
    else:
        yield dataset


def _ends(path: str, end: bytes) -> bool:
    """Whether a file has its format's end, perhaps followed by a few bytes of padding."""
    with open(path, "rb") as file:
        file.seek(max(0, Path(path).stat().st_size - 64))
        return end in file.read()
