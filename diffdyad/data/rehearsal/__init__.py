"""The rehearsal corpus: synthetic exchanges between two people, for which the truth is known."""
