"""How good is it: measures over many shots, with their uncertainty."""
