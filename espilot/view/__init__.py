"""What people see of a pilot: pure pictures of facts that others have gathered."""
