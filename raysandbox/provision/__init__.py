"""What components need beyond this package: isolated environments, and model files."""
