# One test run gives mIoU and shift consistency: the metric runs the shifted views of every image.
# The protocol's stride is the network's own, or what is given as `stride`, one of its multiples.
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = [
    val_evaluator,
    dict(type="ShiftConsistencyMetric", protocol=dict(kind="grid")),
]
custom_hooks = [dict(type="ShiftConsistencyHook")]
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
