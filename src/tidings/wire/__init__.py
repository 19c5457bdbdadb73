"""JSON and forms on one side, the model on the other: what stands on the wire is decided here and only here."""
