"""The sections of a report's page, as plain values and figures."""
