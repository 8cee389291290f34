"""Training: filters learn, an interrupted run goes on exactly, both kinds of config run."""

import argparse
import json

import pytest

pytest.importorskip("detectron2", reason="Detectron2 isn't installed: make detectron2")

import torch

from aa_plugins.detectron2.config import load_yaml
from aa_plugins.detectron2.train import Trainer, launch, main
from tests.detectron2.shared import LAZY, SHAPES, TINY

OPTIONS = [*TINY, "MODEL.AA.FILTER", "adaptive", "SOLVER.CHECKPOINT_PERIOD", "2"]


def run(out, *options, config=SHAPES, lazy=False, **flags):
    """What tools/train_net.py does, in this process."""
    args = {"eval_only": False, "resume": False, "weights": None, **flags}
    if not lazy:
        options = [*OPTIONS, "OUTPUT_DIR", str(out), *options]
    args = argparse.Namespace(config_file=str(config), opts=list(options), **args)
    return main(args, lazy)


def checkpoint(folder):
    name = (folder / "last_checkpoint").read_text()
    return torch.load(folder / name, weights_only=False)


def test_a_run_trains_its_filters_resumes_exactly_and_is_evaluated(datasets, tmp_path):
    results = run(tmp_path, "SOLVER.MAX_ITER", "2")
    assert set(results) == {"bbox", "segm"}
    first = checkpoint(tmp_path)
    assert first["iteration"] == 1
    moved = [
        k for k, v in first["model"].items() if "filter.norm.weight" in k and v.abs().sum() > 0
    ]
    assert len(moved) == 7
    trainer = Trainer(load_yaml(SHAPES, [*OPTIONS, "OUTPUT_DIR", str(tmp_path)]))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2
    restored = trainer.model.state_dict()
    assert all(torch.equal(value, restored[key]) for key, value in first["model"].items())
    saved = first["trainer"]["_trainer"]["optimizer"]["state"]
    momenta = trainer.optimizer.state_dict()["state"]
    assert len(saved) == len(momenta) > 0
    for key, state in saved.items():
        assert torch.equal(state["momentum_buffer"], momenta[key]["momentum_buffer"])
    assert run(tmp_path, eval_only=True, resume=True).keys() == results.keys()
    assert "training 7 filters" in (tmp_path / "log.txt").read_text()


def test_mixed_precision_on_a_cpu_trains_in_bfloat16_keeps_float32_and_resumes(datasets, tmp_path):
    from torch import nn

    options = [*OPTIONS, "OUTPUT_DIR", str(tmp_path), "SOLVER.AMP.ENABLED", "True"]
    seen = []
    trainer = Trainer(load_yaml(SHAPES, [*options, "SOLVER.MAX_ITER", "2"]))
    for module in trainer.model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _, __, out: seen.append((out.dtype, out.requires_grad))
            )
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert {dtype for dtype, training in seen if training} == {torch.bfloat16}
    assert {dtype for dtype, training in seen if not training} == {torch.float32}
    saved = checkpoint(tmp_path)
    assert all(v.dtype == torch.float32 for v in saved["model"].values() if v.is_floating_point())
    again = Trainer(load_yaml(SHAPES, options))
    again.resume_or_load(resume=True)
    assert again.start_iter == 2
    assert len(again.optimizer.state_dict()["state"]) > 0


def test_filters_may_have_a_rate_and_a_decay_of_their_own(datasets, tmp_path):
    from aa_plugins.layers import filters_of

    plain = Trainer(load_yaml(SHAPES, [*OPTIONS, "OUTPUT_DIR", str(tmp_path)]))
    own = ["SOLVER.FILTER_LR_FACTOR", "30.0", "SOLVER.WEIGHT_DECAY_FILTER", "0.0"]
    fast = Trainer(load_yaml(SHAPES, [*OPTIONS, "OUTPUT_DIR", str(tmp_path), *own]))

    def rates(trainer):
        names = {id(p): name for name, p in trainer.model.named_parameters()}
        groups = trainer.optimizer.param_groups
        found = [(names[id(p)], (g["lr"], g["weight_decay"])) for g in groups for p in g["params"]]
        assert len(found) == len(dict(found)) == len(names)
        return dict(found)

    before, after = rates(plain), rates(fast)
    filters = {f"{n}.{p}" for n, f in filters_of(fast.model) for p, _ in f.named_parameters()}
    assert before.keys() == after.keys() > filters
    for name, (rate, decay) in before.items():
        expected = (30 * rate, 0.0) if name in filters else (rate, decay)
        assert after[name] == pytest.approx(expected)


@pytest.mark.slow
def test_two_processes_give_the_ap_of_one(datasets, tiny_weights, tmp_path):
    found = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        args = argparse.Namespace(config_file=SHAPES, opts=[*OPTIONS, "OUTPUT_DIR", str(out)])
        args.eval_only, args.resume, args.weights = True, False, tiny_weights
        args.num_gpus, args.num_machines, args.machine_rank, args.dist_url = processes, 1, 0, "auto"
        launch(args, lazy=False)
        lines = (out / "log.txt").read_text().splitlines()
        aps = [line.split("copypaste: ")[1] for line in lines if "copypaste: " in line]
        rows = json.loads((out / "inference/coco_instances_results.json").read_text())
        found.append((aps, sorted(json.dumps(row, sort_keys=True) for row in rows)))
    assert found[0] == found[1]
    aps, rows = found[0]
    assert aps[0] == "Task: bbox" and len(aps) == 6 and len(rows) >= 20


def test_a_lazy_config_trains_and_is_evaluated(datasets, tmp_path):
    config = tmp_path / "tiny.py"
    config.write_text(LAZY)
    output = f"train.output_dir={tmp_path}"
    results = run(tmp_path, output, config=config, lazy=True)
    assert "bbox" in results
    assert checkpoint(tmp_path)["iteration"] == 1
    again = run(tmp_path, output, config=config, lazy=True, eval_only=True, resume=True)
    assert again.keys() == results.keys()


def test_the_right_evaluator_is_chosen_and_an_unknown_kind_named(datasets):
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import CityscapesInstanceEvaluator

    from aa_plugins.detectron2.train import build_evaluator

    name = "cityscapes_fine_instance_seg_val"
    assert isinstance(build_evaluator(name, "unused"), CityscapesInstanceEvaluator)
    MetadataCatalog.get("odd_dataset").set(evaluator_type="lvis")
    with pytest.raises(NotImplementedError, match="odd_dataset.*COCO_PATHS"):
        build_evaluator("odd_dataset", "unused")
