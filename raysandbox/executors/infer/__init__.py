"""Model inference: one file per `type`; none in this version."""
