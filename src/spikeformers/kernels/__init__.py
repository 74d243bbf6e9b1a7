"""Kernels: tensors in, tensors out. One folder per operation; the reference defines it, the others only compute it faster."""
