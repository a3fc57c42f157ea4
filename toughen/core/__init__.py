"""What every part speaks: types, threats, objectives, gradients, random numbers, costs, processes."""
