"""Logits of images that change in a window at a time, at the price of what the window reaches."""
