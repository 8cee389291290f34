"""torchvision host: detectors measured, and briefly trained, without any framework."""

from aa_plugins.datasets.coco import CocoImages
from aa_plugins.torchvision.detection import build_detector, evaluate, protocol_of, train

__all__ = ["CocoImages", "build_detector", "evaluate", "protocol_of", "train"]
