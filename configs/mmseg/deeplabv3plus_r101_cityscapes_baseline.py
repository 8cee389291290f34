_base_ = [
    "./_base_/models/deeplabv3plus_r101.py",
    "./_base_/datasets/cityscapes.py",
    "./_base_/schedules/sgd_80k.py",
    "./_base_/shift_consistency.py",
    "./_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=(512, 1024)))
