"""What everything builds on: registry, components, errors, keys, files, events, redaction."""
