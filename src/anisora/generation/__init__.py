"""From a request to a finished shot."""
