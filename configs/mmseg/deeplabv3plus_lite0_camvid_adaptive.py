# The same with filters, at once or, from the baseline's weights, converted.
_base_ = "./deeplabv3plus_lite0_camvid_baseline.py"
model = dict(backbone=dict(aa=dict(filter="adaptive")))
