_base_ = "./deeplabv3plus_r18_camvid_baseline.py"
model = dict(backbone=dict(aa=dict(filter="bank", kernel_size=5)))
