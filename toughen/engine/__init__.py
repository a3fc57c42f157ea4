"""Runs a net fast and reproducibly: batches of a fixed size, optimised copies, devices, memory."""
