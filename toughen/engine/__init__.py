"""Runs a net fast and reproducibly: batches of a fixed size, optimised copies, incremental logits, devices, memory."""
