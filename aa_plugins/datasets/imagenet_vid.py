"""ImageNet-VID (ILSVRC 2015): its 30 classes among the 1000 of ImageNet, and its layout.

Data/VID/SPLIT/…/SNIPPET/000000.JPEG has its objects in Annotations/VID/SPLIT/…/SNIPPET/000000.xml.
The map is ours, by the names of ImageNet's classes: that of Shankar et al. (ICCV 2021) may differ
in classes of doubt, such as locomotives among trains. `--class-map` takes another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from aa_plugins.datasets.clips import Clip

# A class of ImageNet-VID to those of ImageNet as torchvision and timm count them.
CLASSES: Mapping[str, tuple[int, ...]] = {
    "n02691156": (404, 895),  # airplane
    "n02419796": (351, 352, 353),  # antelope
    "n02131653": (294, 295, 296, 297),  # bear
    "n02834778": (444, 671),  # bicycle
    "n01503061": (*range(7, 25), *range(80, 101), *range(127, 147)),  # bird
    "n02924116": (654, 779, 874),  # bus
    "n02958343": (407, 436, 468, 511, 609, 627, 656, 661, 751, 817),  # car
    "n02402425": (345,),  # cattle
    "n02084071": (*range(151, 269),),  # dog
    "n02121808": (281, 282, 283, 284, 285),  # domestic cat
    "n02503517": (385, 386),  # elephant
    "n02118333": (277, 278, 279, 280),  # fox
    "n02510455": (388,),  # giant panda
    "n02342885": (333,),  # hamster
    "n02374451": (339,),  # horse
    "n02129165": (291,),  # lion
    "n01674464": (*range(38, 49),),  # lizard
    "n02484322": (*range(370, 383),),  # monkey
    "n03790512": (665, 670),  # motorcycle
    "n02324045": (330, 332),  # rabbit
    "n02509815": (387,),  # red panda
    "n02411705": (348, 349),  # sheep
    "n01726692": (*range(52, 69),),  # snake
    "n02355227": (335,),  # squirrel
    "n02129604": (292,),  # tiger
    "n04468005": (466, 547, 820),  # train
    "n01662784": (*range(33, 38),),  # turtle
    # watercraft
    "n04530566": (403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 871, 914),
    "n02062744": (147, 148),  # whale
    "n02391049": (340,),  # zebra
}


def is_layout(folder: str | Path) -> bool:
    """Whether a folder holds ImageNet-VID."""
    return all((Path(folder) / name / "VID").is_dir() for name in ("Data", "Annotations"))


def snippets(folder: str | Path, split: str = "val") -> list[Path]:
    """The folders of frames of a split, in order.

    Raises:
        FileNotFoundError: where there are none.
    """
    root = Path(folder) / "Data/VID" / split
    found = sorted({path.parent for path in root.rglob("*.JPEG")})
    if not found:
        raise FileNotFoundError(f"no frame {root}/…/000000.JPEG: give a split of ImageNet-VID")
    return found


def classes_of(
    folder: str | Path, clip: Clip, classes: Mapping[str, tuple[int, ...]] = CLASSES
) -> list[list[int]]:
    """Of each frame of a snippet the classes of ImageNet that are right: those of all objects in
    it, none where there is no object.

    Raises:
        ValueError: for an object of a class that isn't in the map.
    """
    below = clip.path.relative_to(Path(folder) / "Data")
    found = []
    for file in clip.files:
        annotation = Path(folder) / "Annotations" / below / f"{file.stem}.xml"
        names: set[str] = set()
        if annotation.is_file():
            names = {name.text or "" for name in ElementTree.parse(annotation).iter("name")}
        if unknown := sorted(names - set(classes)):
            raise ValueError(f"{annotation}: class {unknown[0]!r} isn't in the map of classes")
        found.append(sorted({index for name in names for index in classes[name]}))
    return found
