"""What a frozen policy is written as: ONNX and C."""
