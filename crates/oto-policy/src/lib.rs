//! Teacher policies from files made elsewhere: ONNX, safetensors, PyTorch.
