"""Text-to-video models: families, loading, one video per call, LoRAs."""
