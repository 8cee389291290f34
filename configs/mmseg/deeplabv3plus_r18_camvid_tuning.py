# The CPU recipe on the tuning split, shorter: 8 epochs of 266 images in bfloat16, fewer views.
_base_ = [
    "./_base_/models/deeplabv3plus_r18.py",
    "./_base_/datasets/camvid_tuning.py",
    "./_base_/schedules/sgd_40k.py",
    "./_base_/shift_consistency.py",
    "./_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=(160, 224)))
optim_wrapper = dict(type="CpuAmpOptimWrapper", optimizer=dict(lr=0.02))
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=264, by_epoch=False)]
train_cfg = dict(max_iters=264, val_interval=264)
default_hooks = dict(checkpoint=dict(interval=88))
env_cfg = dict(dist_cfg=dict(backend="gloo"))
test_evaluator = [
    dict(type="IoUMetric", iou_metrics=["mIoU"]),
    dict(
        type="ShiftConsistencyMetric",
        protocol=dict(kind="grid", shifts=[(1, 0), (0, 1), (1, 1), (2, 2), (4, 4)]),
    ),
]
