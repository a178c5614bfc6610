"""Output parsers: one file per `parse_output_func`."""
