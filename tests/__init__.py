"""A package, so that one of the same name among the installed (torch-fidelity brings it) does not hide it."""
