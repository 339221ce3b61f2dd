"""The conformance kit: plays a pilot against a payload and says what the payload does wrong."""
