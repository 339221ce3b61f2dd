"""Whether a pilot could work here: checks that try each thing for itself."""
