# One test run gives mIoU and shift consistency: the metric runs the shifted views of every image.
# `stride` is the largest total stride, in pixels of the network's input, among the models compared.
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = [
    val_evaluator,
    dict(type="ShiftConsistencyMetric", protocol=dict(kind="grid", stride=16)),
]
custom_hooks = [dict(type="ShiftConsistencyHook")]
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
