//! Models: the manifest beside the ONNX file, loading through tract, the lowering of quantised graphs to our kernels.
