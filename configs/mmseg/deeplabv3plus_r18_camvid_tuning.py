# The CPU recipe on the tuning split, shorter: 9 epochs of 266 images.
_base_ = [
    "./_base_/models/deeplabv3plus_r18.py",
    "./_base_/datasets/camvid_tuning.py",
    "./_base_/schedules/sgd_40k.py",
    "./_base_/shift_consistency.py",
    "./_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=(160, 224)))
optim_wrapper = dict(optimizer=dict(lr=0.02))
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=300, by_epoch=False)]
train_cfg = dict(max_iters=300, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=100))
env_cfg = dict(dist_cfg=dict(backend="gloo"))
