# An ImageNet network on CamVid at 192×256, small enough for one CPU core.
_base_ = [
    "./_base_/models/deeplabv3plus_lite0.py",
    "./_base_/datasets/camvid_192x256_scaled.py",
    "./_base_/schedules/adamw_80k.py",
    "./_base_/shift_consistency.py",
    "./_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=(160, 224)))
optim_wrapper = dict(type="CpuAmpOptimWrapper", optimizer=dict(lr=1e-3, weight_decay=0.01))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=46),
    dict(type="PolyLR", eta_min=0.0, power=0.9, begin=46, end=1380, by_epoch=False),
]
train_cfg = dict(max_iters=1380, val_interval=1380)
default_hooks = dict(checkpoint=dict(interval=138))
env_cfg = dict(dist_cfg=dict(backend="gloo"))
