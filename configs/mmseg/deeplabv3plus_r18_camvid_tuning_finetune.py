# Three more epochs on the tuning split, of a network that was trained on it without filters.
_base_ = "./deeplabv3plus_r18_camvid_tuning.py"
optim_wrapper = dict(optimizer=dict(lr=0.005))
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=100, by_epoch=False)]
train_cfg = dict(max_iters=100, val_interval=100)
default_hooks = dict(checkpoint=dict(interval=50))
