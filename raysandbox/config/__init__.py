"""Reading configurations: located documents, overrides, the sandbox schema."""
