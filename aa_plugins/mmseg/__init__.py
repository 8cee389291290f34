"""MMSegmentation: importing this registers backbones, data sets, the test loop and the metric.

In a config: `custom_imports = dict(imports=["aa_plugins.mmseg"])`.
"""

from aa_plugins.mmseg.amp import CpuAmpOptimWrapper
from aa_plugins.mmseg.averaging import PhaseAveragedEncoderDecoder
from aa_plugins.mmseg.backbones import AAResNet, AAResNetV1c, AATIMMBackbone
from aa_plugins.mmseg.consistency import ShiftConsistencyHook, ShiftConsistencyMetric
from aa_plugins.mmseg.consistent import ConsistentEncoderDecoder
from aa_plugins.mmseg.folders import CamVidDataset, ShapesDataset
from aa_plugins.mmseg.hooks import FinitePredictionsHook, MainProcessLoggerHook
from aa_plugins.mmseg.images import CheckFiles
from aa_plugins.mmseg.labels import CheckLabels

__all__ = [
    "AAResNet",
    "AAResNetV1c",
    "AATIMMBackbone",
    "CamVidDataset",
    "CheckFiles",
    "CheckLabels",
    "ConsistentEncoderDecoder",
    "CpuAmpOptimWrapper",
    "FinitePredictionsHook",
    "MainProcessLoggerHook",
    "PhaseAveragedEncoderDecoder",
    "ShapesDataset",
    "ShiftConsistencyHook",
    "ShiftConsistencyMetric",
]
