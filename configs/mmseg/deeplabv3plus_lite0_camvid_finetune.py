# Three more epochs of a trained network. AdamW's steps don't depend on the size of a gradient, so
# that filters need a tenfold rate and not, as under SGD, a thousandfold one.
_base_ = "./deeplabv3plus_lite0_camvid_baseline.py"
optim_wrapper = dict(
    optimizer=dict(lr=3e-4),
    paramwise_cfg=dict(custom_keys={"filter": dict(lr_mult=10.0, decay_mult=0.0)}),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=138, by_epoch=False)]
train_cfg = dict(max_iters=138, val_interval=138)
default_hooks = dict(checkpoint=dict(interval=46))
