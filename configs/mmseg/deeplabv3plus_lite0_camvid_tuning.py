# The recipe on the tuning split (train without one of its sequences, which is measured on).
_base_ = "./deeplabv3plus_lite0_camvid_baseline.py"
images = dict(img_path="images/train", seg_map_path="labels/train")
held_out = dict(data_prefix=images, names=["0006R0_f*[02468]0"])
train_dataloader = dict(dataset=dict(names=["0001TP_*", "0016E5_*"]))
val_dataloader = dict(dataset=held_out)
test_dataloader = dict(dataset=held_out)
