"""The figures of the pilot: `python -m bench [NAME ...]` prints one JSON object per line."""
