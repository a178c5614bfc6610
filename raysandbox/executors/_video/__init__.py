"""Text-to-video: what training, generation and evaluation share."""
