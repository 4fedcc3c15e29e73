"""The lines of the table."""

from diffdyad.evaluation.figures import accuracy, happenings, liveliness, pooled, samples, timing

CLIP_FIGURES = (*accuracy.FIGURES, *liveliness.FIGURES, *timing.FIGURES, *happenings.FIGURES)
SAMPLE_FIGURES = samples.FIGURES
POOLED_FIGURES = pooled.FIGURES
