"""Videos of prompts: units, records, what a worker does, what is drawn."""
