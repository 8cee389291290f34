_base_ = "./deeplabv3plus_r101_cityscapes_baseline.py"
model = dict(backbone=dict(aa=dict(filter="adaptive")))
