from mmengine.evaluator import BaseMetric
from mmengine.runner import TestLoop
from mmseg.registry import LOOPS, METRICS
@LOOPS.register_module()
class ShiftConsistencyLoop(TestLoop):
    pass
@METRICS.register_module()
class ShiftConsistencyMetric(BaseMetric):
    def __init__(self, protocol=None, **k): super().__init__(prefix='shift')
    def process(self, b, s): self.results.extend([0]*len(s))
    def compute_metrics(self, r): return {}
