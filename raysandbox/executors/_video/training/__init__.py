"""Training of LoRAs: data, encoded clips, denoising, the loop, checkpoints."""
