"""Video in, score out; no thresholds here."""
