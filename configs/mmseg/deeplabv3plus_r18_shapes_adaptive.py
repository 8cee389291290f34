_base_ = "./deeplabv3plus_r18_shapes_baseline.py"
model = dict(backbone=dict(aa=dict(filter="adaptive")))
