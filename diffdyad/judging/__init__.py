"""The commands that judge: `diffdyad evaluate` and `diffdyad context`."""
