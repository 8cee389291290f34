"""Networks in ONNX files: predictions can be measured, layers can't be looked into."""
