_base_ = "./deeplabv3plus_r101_voc_baseline.py"
model = dict(backbone=dict(aa=dict(filter="blur")))
