"""Model inference: one file per `type`; what they share begins with an underscore."""
