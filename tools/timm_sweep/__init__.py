"""Every timm module's smallest model, checked, as a table."""
