"""Train baseline, blur and adaptive for minutes, and measure how far each is shift consistent."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the laboratory's packages are

from aa_plugins.command import run
from aa_plugins.datasets import write_shapes
from aa_plugins.evaluation.records import read_records
from aa_plugins.evaluation.tasks import TASKS
from aa_plugins.report import Report, flip_picture, write_json
from aa_plugins.report.comparison import comparison
from aa_plugins.report.elements import Picture, png

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = ("baseline", "blur", "adaptive")
SHIFT = (1, 1)
COLUMNS = ("mIoU", "mASSC", "controls/same_phase", "aliasing_loss")
INSTANCE_COLUMNS = ("mask/AP/reference", "mask/mAISC", "box/AP/reference", "box/mAISC")
INSTANCE_ITERATIONS = 80
PROGRESS = re.compile(r"Iter\((train|test)\) *\[ *(\d+)/(\d+)\]")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tools/demo", description=__doc__)
    parser.add_argument("--data", metavar="DIR", help="a folder like CamVid's, instead of shapes")
    parser.add_argument("--out", default="out/demo", metavar="DIR", help="%(default)s")
    args = parser.parse_args()
    out = Path(args.out)
    name, data, options = "shapes", out / "shapes", []
    if args.data:
        iterations = 120
        name, data = "camvid", Path(args.data)
        options = [f"train_cfg.max_iters={iterations}", f"train_cfg.val_interval={iterations}"]
        options += [f"param_scheduler.0.end={iterations}"]
    elif not data.exists():
        write_shapes(data, "camvid", val=24)
    configs = {v: ROOT / f"configs/mmseg/deeplabv3plus_r18_{name}_{v}.py" for v in VARIANTS}
    for variant, config in configs.items():
        train(variant, config, data, out / variant, options)
    report = report_on(configs, data, out)
    report.save(out)
    semantic_results = {
        variant: {metric: entry["value"] for metric, entry in found.items() if "value" in entry}
        for variant, found in report.results.items()
    }
    print(f"\n{report.text()}\n\nIn percent, with 95 % intervals over images.")
    write_json(out / "results.json", {"semantic": semantic_results})
    instance_results = instances(out / "instance")
    write_json(out / "results.json", {"semantic": semantic_results, "instance": instance_results})
    print(f"Saved: {out}/results.json, {out}/report.html, {out}/flips.png\n\nWhere it comes from:")
    weights = [(out / v / "last_checkpoint").read_text().strip() for v in VARIANTS]
    look(configs, weights, data / "images/val", data, out / "diagnose")


def look(
    configs: dict[str, Path],
    weights: list[str | Path],
    photos: Path,
    data: Path,
    out: Path,
    options: list[str] | None = None,
) -> None:
    """The page of `aa-plugins diagnose` on what was trained; says where it is."""
    arguments = [*configs.values(), "--weights", *weights, "--photos", photos, "--images", "4"]
    arguments += ["--data-root", data, "--out", out]
    arguments += ["--cfg-options", *options] if options else []
    if run("diagnose", list(map(str, arguments))):
        sys.exit(1)


def train(variant: str, config: Path, data: Path, work_dir: Path, options: list[str]) -> None:
    """Run tools/train_net.py, with its log in the work directory and a bar on the terminal."""
    command = ["tools/train_net.py", "--config-file", str(config.relative_to(ROOT))]
    command += ["--data-root", str(data.resolve()), "--work-dir", str(work_dir.resolve())]
    command += ["--cfg-options", "default_hooks.logger.interval=5", *options]
    print(f"\n{variant}: python {' '.join(command)}", flush=True)
    work_dir.mkdir(parents=True, exist_ok=True)
    log = work_dir / "log.txt"
    with log.open("w") as file, tqdm(desc=variant) as bar:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in process.stdout:
            file.write(line)
            if found := PROGRESS.search(line):
                bar.desc, bar.total = f"{variant} {found[1]}", int(found[3])
                bar.update(int(found[2]) - bar.n)
    if process.wait():
        lines = log.read_text().splitlines()[-5:]
        sys.exit("\n".join([*lines, f"error: {variant} failed, the whole log is {log}"]))


def report_on(configs: dict[str, Path], data: Path, out: Path) -> Report:
    """Tables, paired differences and a picture from what the test runs left behind."""
    records = {variant: read_records(out / variant / "shift_consistency")[1] for variant in configs}
    notes = {"command": "make demo", "seed": 0, "data": str(data)}
    report = comparison("Shift consistency", records, TASKS["semantic"], COLUMNS, notes)
    picture = flips(configs, data, out)
    picture.savefig(out / "flips.png")
    shown = Picture(
        png(picture),
        "Predictions of all variants on two views of one image, and where they differ",
        "Pixels that change class when the image moves by one pixel",
    )
    return replace(report, pictures=[shown])


def instances(out: Path) -> dict[str, dict[str, float | None]]:
    """The same for Mask R-CNN: Detectron2's, or torchvision's where that isn't installed."""
    data = out / "data/shapes"
    if not data.exists():
        write_shapes(data, "coco", train=200, val=12)
        merge_classes(data)
    try:
        from demo import detectron2_instances as demo
    except ImportError as error:
        print(f"\nMask R-CNN of torchvision, as Detectron2 can't be imported ({error})")
        from demo import torchvision_instances as demo

        records = demo.run(data, out, INSTANCE_ITERATIONS // 2)
    else:
        print("\nMask R-CNN of Detectron2")
        folder = ROOT / "configs/detectron2/Shapes"
        configs = {v: folder / f"mask_rcnn_R_18_FPN_{v}.yaml" for v in VARIANTS}
        records = demo.run(configs, data.parent, out, INSTANCE_ITERATIONS)
        weights = [out / variant / "model_final.pth" for variant in configs]
        options = ["MODEL.ROI_HEADS.NUM_CLASSES=1"]
        look(configs, weights, data / "val", data.parent, out / "diagnose", options)
    report = comparison(
        "Shift consistency of instances",
        records,
        TASKS["instance"],
        INSTANCE_COLUMNS,
        {"command": "make demo", "seed": 1, "data": str(data)},
    )
    report.save(out)
    print(f"\n{report.text()}\n\nSaved: {out}/report.html")
    return {
        variant: {
            "AP": found["mask"]["AP"]["reference"]["value"],
            "mAISC": found["mask"]["mAISC"]["value"],
        }
        for variant, found in report.results.items()
    }


def merge_classes(data: Path) -> None:
    """Call every shape a shape: minutes suffice to find them, but not to tell seven kinds apart."""
    for path in data.glob("instances_*.json"):
        content = json.loads(path.read_text())
        content["categories"] = [{"id": 1, "name": "shape"}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        path.write_text(json.dumps(content))


def flips(configs: dict[str, Path], data: Path, out: Path):
    """The picture of flips on the first test image, all variants side by side."""
    from aa_plugins.mmseg.evaluate import predict_pair

    pairs = {}
    for variant, config in configs.items():
        weights = (out / variant / "last_checkpoint").read_text().strip()
        pairs[variant] = predict_pair(config, weights, 0, SHIFT, data)
    first = next(iter(pairs.values()))
    labels = {variant: pair.labels for variant, pair in pairs.items()}
    palette = first.palette if "camvid" in str(next(iter(configs.values()))) else None
    return flip_picture(first.image, labels, first.class_names, SHIFT, first.truth, palette)


if __name__ == "__main__":
    main()
