"""Inference engines: torch, or ONNX Runtime without torch."""
