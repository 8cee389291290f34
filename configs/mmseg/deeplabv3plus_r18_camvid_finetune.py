# Three more epochs of a trained network. The loss hardly moves its filters: they get a thousandfold
# rate, at which weight decay would pull them all back to their start.
_base_ = "./deeplabv3plus_r18_camvid_baseline.py"
optim_wrapper = dict(
    type="CpuAmpOptimWrapper",
    optimizer=dict(lr=0.005),
    paramwise_cfg=dict(custom_keys={"filter": dict(lr_mult=1000.0, decay_mult=0.0)}),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=138, by_epoch=False)]
train_cfg = dict(max_iters=138, val_interval=138)
default_hooks = dict(checkpoint=dict(interval=46))
