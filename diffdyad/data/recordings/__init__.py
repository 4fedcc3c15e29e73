"""Exchanges from recordings of two people: sound, who speaks when, turns, words; `build.build_dataset` runs it all."""
