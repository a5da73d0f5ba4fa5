"""Export models for other tools."""

from sparsekit.exporters.onnx import export_onnx

__all__ = ["export_onnx"]
