_base_ = [
    "./_base_/models/deeplabv3plus_r101.py",
    "./_base_/datasets/camvid.py",
    "./_base_/schedules/sgd_40k.py",
    "./_base_/shift_consistency.py",
    "./_base_/default_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(352, 480)),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
