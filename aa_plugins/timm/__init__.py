"""timm: importing this registers `aa_<name>` for every model that lowers resolution step by step.

import aa_plugins.timm
model = timm.create_model("aa_resnet50.a1_in1k", pretrained=True, aa=dict(filter="blur"))
"""

from aa_plugins.timm.models import MODULES, build, register_all

register_all()

__all__ = ["MODULES", "build"]
