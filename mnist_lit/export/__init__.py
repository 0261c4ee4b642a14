"""Networks as ONNX, and as a page without a server."""
