"""Logits of images of which only a window of pixels changes: only the activations that depend on it are recomputed."""
