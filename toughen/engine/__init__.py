"""How a net is asked fast and exactly: batches of one size, copies to search with, windows, devices, memory."""
