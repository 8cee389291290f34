# What `make demo` trains: a minute on two CPU cores.
_base_ = [
    "./_base_/models/deeplabv3plus_r18.py",
    "./_base_/datasets/shapes.py",
    "./_base_/schedules/sgd_40k.py",
    "./_base_/shift_consistency.py",
    "./_base_/default_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(112, 144)),
    decode_head=dict(num_classes=8),
    auxiliary_head=dict(num_classes=8),
)
optim_wrapper = dict(optimizer=dict(lr=0.02))
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=80, by_epoch=False)]
train_cfg = dict(max_iters=80, val_interval=80)
default_hooks = dict(checkpoint=dict(interval=40))
env_cfg = dict(dist_cfg=dict(backend="gloo"))
