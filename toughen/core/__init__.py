"""The basis of all other packages: types, threats, objectives, gradients, random numbers, costs, processes."""
