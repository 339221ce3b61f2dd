"""One facility of the world per file; foreign errors are translated here."""
