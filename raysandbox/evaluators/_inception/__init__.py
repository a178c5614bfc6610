"""Inception metrics: what is sampled, how features are extracted, what they are reduced to."""
