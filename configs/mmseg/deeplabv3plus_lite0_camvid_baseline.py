# An ImageNet network on CamVid at 192×256, 20 epochs, small enough for one CPU core. Classes weigh
# in by the root of how much rarer than the median they are: without, rare ones stay at 0.
_base_ = [
    "./_base_/models/deeplabv3plus_lite0.py",
    "./_base_/datasets/camvid_192x256_scaled.py",
    "./_base_/schedules/adamw_80k.py",
    "./_base_/shift_consistency.py",
    "./_base_/default_runtime.py",
]
class_weight = [0.52, 0.44, 2.14, 0.38, 1.0, 0.68, 1.96, 2.0, 0.87, 2.65, 3.92]
model = dict(
    data_preprocessor=dict(size=(160, 224)),
    decode_head=dict(loss_decode=dict(class_weight=class_weight)),
)
optim_wrapper = dict(type="CpuAmpOptimWrapper", optimizer=dict(lr=1e-3, weight_decay=0.01))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=46),
    dict(type="PolyLR", eta_min=0.0, power=0.9, begin=46, end=920, by_epoch=False),
]
train_cfg = dict(max_iters=920, val_interval=920)
default_hooks = dict(checkpoint=dict(interval=115))
env_cfg = dict(dist_cfg=dict(backend="gloo"))
