"""Hooks: one file each; they tie a job of the configuration to what runs."""
