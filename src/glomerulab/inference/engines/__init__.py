"""Run a model: by torch, or by ONNX Runtime without torch."""
